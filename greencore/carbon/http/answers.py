"""Parses a provider's JSON response field by field; errors name the field."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from greencore.carbon.errors import InvalidResponse
from greencore.clock import parse_utc

SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class ResponseValue:
    """A JSON value with its provider and path, such as `uk: data[0].from`.

    Each method raises InvalidResponse, with the path and what was found, where the value is of another type.
    """

    value: object
    path: str

    def field(self, name: str) -> "ResponseValue":
        """Return the member of this name, which may be null; raises InvalidResponse where it is absent."""
        members = self._members()
        if name not in members:
            raise InvalidResponse(f"{self.path} has no {name!r}: {self._describe()}")
        return self._child(name, members[name])

    def optional_field(self, name: str) -> "ResponseValue | None":
        """Return the member of this name, or None where it is absent or null."""
        value = self._members().get(name)
        return None if value is None else self._child(name, value)

    def has_field(self, name: str) -> bool:
        """Return whether the value is an object with a member of this name."""
        return isinstance(self.value, dict) and name in self.value

    def items(self) -> Iterator["ResponseValue"]:
        """Iterate over the elements of a list."""
        if not isinstance(self.value, list):
            raise self._type_error("a list")
        return (ResponseValue(value, f"{self.path}[{index}]") for index, value in enumerate(self.value))

    def text(self) -> str:
        """Return the value as a string."""
        if not isinstance(self.value, str):
            raise self._type_error("a text")
        return self.value

    def number(self) -> float | None:
        """Return a number, also one written as a string; it may be NaN or infinite. None where it is null."""
        if self.value is None:
            return None
        if isinstance(self.value, int | float | str) and not isinstance(self.value, bool):
            try:
                return float(self.value)
            except OverflowError:
                return math.inf
            except ValueError:
                pass
        raise self._type_error("a number or null")

    def boolean(self) -> bool:
        """Return the value as a boolean."""
        if not isinstance(self.value, bool):
            raise self._type_error("true or false")
        return self.value

    def time(self) -> datetime:
        """Return a time in ISO 8601, converted to UTC; without an offset it is in UTC."""
        if isinstance(self.value, str):
            try:
                return parse_utc(self.value)
            except (ValueError, OverflowError):
                pass
        raise self._type_error("a time in ISO 8601")

    def unix_time(self) -> datetime:
        """Return a time given in seconds since 1970, in UTC."""
        if isinstance(self.value, int | float) and not isinstance(self.value, bool):
            try:
                return datetime.fromtimestamp(self.value, UTC)
            except (ValueError, OverflowError, OSError):
                pass
        raise self._type_error("seconds since 1970")

    def _members(self) -> dict[str, object]:
        if not isinstance(self.value, dict):
            raise self._type_error("an object")
        return self.value

    def _child(self, name: str, value: object) -> "ResponseValue":
        return ResponseValue(value, f"{self.path}.{name}" if ":" in self.path else f"{self.path}: {name}")

    def _type_error(self, expected: str) -> InvalidResponse:
        return InvalidResponse(f"{self.path} is {self._describe()}: expected {expected}")

    def _describe(self) -> str:
        if isinstance(self.value, dict):
            return f"an object with {', '.join(map(repr, list(self.value)[:8])) or 'nothing in it'}"[:SHOWN_CHARACTERS]
        if isinstance(self.value, list):
            return f"a list of {len(self.value)}"
        return repr(self.value)[:SHOWN_CHARACTERS]
