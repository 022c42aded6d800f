"""Page of a list, shared by all repositories; ids and numbers that grow with time are the cursor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """At most `limit` rows, and whether more follow."""

    data: Sequence[Row]
    has_more: bool

    @classmethod
    def from_rows(cls, rows: Sequence[Row], limit: int) -> "Page[Row]":
        """Return the page of the `limit + 1` rows that were queried."""
        return cls(data=rows[:limit], has_more=len(rows) > limit)
