"""Reads a policy argument: a JSON file, JSON in braces, or the name of a stored policy."""

import json
import math
from pathlib import Path
from typing import Any

from cli.errors import SettingError
from cli.options import is_file


def read_policy_choice(given: str, where: str = "--policy") -> str | dict[str, Any]:
    """Return the name of a stored policy, or the policy in a file or in braces. Raises `SettingError`."""
    if is_inline_json(given) or given.endswith(".json") or is_file(given, where):
        return read_policy_object(given, where)
    return given


def read_policy_object(given: str, where: str) -> dict[str, Any]:
    """Parse a JSON file, or JSON in braces, that contains an object. Raises `SettingError`."""
    body = read_policy_json(given, where)
    if not isinstance(body, dict):
        raise SettingError(f"{where}: expected a JSON object, in braces")
    return body


def read_policy_json(given: str, where: str) -> Any:
    """Parse a JSON file, or JSON in braces; `where` names the argument in errors. Raises `SettingError`."""
    where = describe_policy_source(given, where)
    try:
        text = given if is_inline_json(given) else Path(given).read_text(encoding="utf-8")
        return json.loads(text, parse_constant=_parse_finite, parse_float=_parse_finite)
    except FileNotFoundError as error:
        raise SettingError(f"{where}: there is no such file; a policy can also be given as JSON, in braces") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{where}: cannot be read as UTF-8 text ({error})") from error
    except (ValueError, RecursionError) as error:
        raise SettingError(f"{where}: not JSON: {error}") from error


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def describe_policy_source(given: str, where: str) -> str:
    """Return the name of an argument, with the file where one was given."""
    return where if is_inline_json(given) else f"{where}: {given}"


def is_inline_json(given: str) -> bool:
    """Return whether an argument is JSON in braces rather than a name."""
    return given.lstrip().startswith("{")
