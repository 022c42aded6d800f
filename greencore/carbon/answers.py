"""Reads a provider's JSON answer field by field, and names the field that is not as expected."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from greencore.carbon.errors import BadAnswer

SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON value, and where in whose answer it stands, such as `uk: data[0].from`.

    Each method raises BadAnswer, with the place and what was found, where the value is of another type.
    """

    value: object
    place: str

    def field(self, name: str) -> "Answer":
        """The member of this name; it must be there, though it may be null."""
        members = self._members()
        if name not in members:
            raise BadAnswer(f"{self.place} has no {name!r}: {self._shown()}")
        return self._child(name, members[name])

    def maybe(self, name: str) -> "Answer | None":
        """The member of this name, or None where it is absent or null."""
        value = self._members().get(name)
        return None if value is None else self._child(name, value)

    def holds(self, name: str) -> bool:
        """Whether this is an object with a member of this name."""
        return isinstance(self.value, dict) and name in self.value

    def items(self) -> Iterator["Answer"]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            raise self._unlike("a list")
        return (Answer(value, f"{self.place}[{index}]") for index, value in enumerate(self.value))

    def text(self) -> str:
        """A text."""
        if not isinstance(self.value, str):
            raise self._unlike("a text")
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
        raise self._unlike("a number or null")

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            raise self._unlike("true or false")
        return self.value

    def time(self) -> datetime:
        """A time in ISO 8601, in UTC; without an offset it is taken to be in UTC."""
        if isinstance(self.value, str):
            try:
                time = datetime.fromisoformat(self.value)
                return time.replace(tzinfo=UTC) if time.utcoffset() is None else time.astimezone(UTC)
            except (ValueError, OverflowError):
                pass
        raise self._unlike("a time in ISO 8601")

    def unix_time(self) -> datetime:
        """A time in seconds since 1970, in UTC."""
        if isinstance(self.value, int | float) and not isinstance(self.value, bool):
            try:
                return datetime.fromtimestamp(self.value, UTC)
            except (ValueError, OverflowError, OSError):
                pass
        raise self._unlike("seconds since 1970")

    def _members(self) -> dict[str, object]:
        if not isinstance(self.value, dict):
            raise self._unlike("an object")
        return self.value

    def _child(self, name: str, value: object) -> "Answer":
        return Answer(value, f"{self.place}.{name}" if ":" in self.place else f"{self.place}: {name}")

    def _unlike(self, expected: str) -> BadAnswer:
        return BadAnswer(f"{self.place} is {self._shown()}: expected {expected}")

    def _shown(self) -> str:
        if isinstance(self.value, dict):
            return f"an object with {', '.join(map(repr, list(self.value)[:8])) or 'nothing in it'}"[:SHOWN_CHARACTERS]
        if isinstance(self.value, list):
            return f"a list of {len(self.value)}"
        return repr(self.value)[:SHOWN_CHARACTERS]
