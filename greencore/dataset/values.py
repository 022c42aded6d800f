"""Checks of single values of a row: text, names, bounded JSON; each raises `InvalidRow` with the value's field."""

import json
from dataclasses import dataclass
from typing import Any

from greencore.dataset.rows import InvalidRow

MAX_SHOWN_CHARACTERS = 120  # of a row's value, in an error
MAX_NAME_CHARACTERS = 256
MAX_JSON_DEPTH = 32


@dataclass(slots=True)
class Place:
    """Place of a value in a row: `line` from 1, and `field`, such as `messages[2].content`."""

    line: int
    field: str = ""

    def __truediv__(self, name: str) -> "Place":
        return Place(self.line, f"{self.field}.{name}" if self.field else name)

    def __getitem__(self, index: int) -> "Place":
        return Place(self.line, f"{self.field}[{index}]")

    def error(self, message: str) -> InvalidRow:
        return InvalidRow(self.line, self.field or None, message)


def check_text(value: object, place: Place, *, required: bool = True) -> str:
    """Return `value` as text that can be stored, with `required` not only whitespace."""
    if not isinstance(value, str):
        raise place.error("is missing" if value is None else f"must be text, got {type(value).__name__}")
    check_characters(value, place)
    if required and not value.strip():
        raise place.error("is empty: there is nothing to learn from it")
    return value


def check_characters(text: str, place: Place) -> None:
    """Check that text can be encoded as UTF-8 and stored."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise place.error(f"character {error.start} is half of a surrogate pair") from error
    if "\0" in text:
        raise place.error(f"character {text.index(chr(0))} is NUL, which cannot be stored")


def check_name(value: object, place: Place) -> str:
    """Return `value` as a name or id of 1 to `MAX_NAME_CHARACTERS` characters."""
    name = check_text(value, place, required=False)
    if not name.strip():
        raise place.error("is empty")
    if len(name) > MAX_NAME_CHARACTERS:
        raise place.error(f"has {len(name)} characters, more than {MAX_NAME_CHARACTERS}")
    return name


def check_list(value: object, place: Place, *, most: int) -> list[Any]:
    """Return `value` as a list of at most `most` entries."""
    if not isinstance(value, list):
        raise place.error("is missing" if value is None else f"must be a list, got {type(value).__name__}")
    if len(value) > most:
        raise place.error(f"has {len(value)} entries, more than {most}")
    return value


def check_object(value: object, place: Place) -> dict[str, Any]:
    """Return `value` as a JSON object."""
    if not isinstance(value, dict):
        raise place.error("is missing" if value is None else f"must be an object, got {type(value).__name__}")
    return value


def check_json(value: object, place: Place, depth: int = 1) -> None:
    """Check that JSON can be stored, and is nested at most `MAX_JSON_DEPTH` deep."""
    if isinstance(value, str):
        check_characters(value, place)
    elif isinstance(value, dict | list):
        if depth > MAX_JSON_DEPTH:
            raise place.error(f"is nested more than {MAX_JSON_DEPTH} deep")
        for name in value if isinstance(value, dict) else ():
            check_characters(name, place)
        for inner in value.values() if isinstance(value, dict) else value:
            check_json(inner, place, depth + 1)


def decode_json(text: str, place: Place) -> object:
    """Return the value of JSON text inside a row."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "cannot be read"
        raise place.error(f"is not JSON: {reason}") from error


def encode_json(value: object, place: Place) -> str:
    """Return canonical JSON text: without spaces, not escaped, and in the order given, which a template renders."""
    check_json(value, place)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise place.error("has a number that JSON cannot have") from error


def shown(value: object) -> str:
    """Format a value for an error: text quoted and shortened, other values by type, since they may be large."""
    if not isinstance(value, str):
        return type(value).__name__
    return ascii(value) if len(value) <= MAX_SHOWN_CHARACTERS else f"{value[:MAX_SHOWN_CHARACTERS]!a}…"
