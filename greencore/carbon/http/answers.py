"""Reads a provider's JSON answer field by field, and names the field that is not as expected."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from greencore.carbon.errors import InvalidResponse

SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class ResponseValue:
    """A JSON value, and where in whose answer it stands, such as `uk: data[0].from`.

    Each method raises InvalidResponse, with the place and what was found, where the value is of another type.
    """

    value: object
    path: str

    def field(self, name: str) -> "ResponseValue":
        """The member of this name; it must be there, though it may be null."""
        members = self._members()
        if name not in members:
            raise InvalidResponse(f"{self.path} has no {name!r}: {self._shown()}")
        return self._child(name, members[name])

    def optional_field(self, name: str) -> "ResponseValue | None":
        """The member of this name, or None where it is absent or null."""
        value = self._members().get(name)
        return None if value is None else self._child(name, value)

    def has_field(self, name: str) -> bool:
        """Whether this is an object with a member of this name."""
        return isinstance(self.value, dict) and name in self.value

    def items(self) -> Iterator["ResponseValue"]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            raise self._type_error("a list")
        return (ResponseValue(value, f"{self.path}[{index}]") for index, value in enumerate(self.value))

    def text(self) -> str:
        """A text."""
        if not isinstance(self.value, str):
            raise self._type_error("a text")
        return self.value

    def number(self) -> float | None:
        """A number, which may be NaN or infinite, and may be written as a text; None where it is null."""
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
        """True or false."""
        if not isinstance(self.value, bool):
            raise self._type_error("true or false")
        return self.value

    def time(self) -> datetime:
        """A time in ISO 8601, in UTC; without an offset it is taken to be in UTC."""
        if isinstance(self.value, str):
            try:
                time = datetime.fromisoformat(self.value)
                return time.replace(tzinfo=UTC) if time.utcoffset() is None else time.astimezone(UTC)
            except (ValueError, OverflowError):
                pass
        raise self._type_error("a time in ISO 8601")

    def unix_time(self) -> datetime:
        """A time in seconds since 1970, in UTC."""
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
        return InvalidResponse(f"{self.path} is {self._shown()}: expected {expected}")

    def _shown(self) -> str:
        if isinstance(self.value, dict):
            return f"an object with {', '.join(map(repr, list(self.value)[:8])) or 'nothing in it'}"[:SHOWN_CHARACTERS]
        if isinstance(self.value, list):
            return f"a list of {len(self.value)}"
        return repr(self.value)[:SHOWN_CHARACTERS]
