"""Reads the settings for commands, from the environment overridden by options; names every setting at fault."""

import re
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from cli.errors import SettingError
from runtime.settings import Settings


def read_settings(**options: Any) -> Settings:
    """Return the settings from the environment, overridden by the options that were given.

    Raises `SettingError` that names each option or variable that is wrong.
    """
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        raise SettingError(f"{_variable(field[1] if field else '*', ())}: expected JSON") from error
    except ValidationError as error:
        raise SettingError("\n".join(map(_fault, error.errors()))) from error


def _fault(fault: ErrorDetails) -> str:
    """Format a fault on one line; one of the environment as a whole names its variables itself."""
    message = fault["msg"].removeprefix("Value error, ")
    return f"{_variable(str(fault['loc'][0]), fault['loc'][1:])}: {message}" if fault["loc"] else message


def _variable(name: str, within: tuple[int | str, ...]) -> str:
    variable = name if name.isupper() else f"GREENTUNE_{name}".upper()
    return ".".join([variable, *map(str, within)])
