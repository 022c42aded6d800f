"""Pages of a list, newest first: ids and numbers that grow with time make the cursor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """At most `limit` rows, and whether more follow the last of them."""

    data: Sequence[Row]
    has_more: bool

    @classmethod
    def from_rows(cls, rows: Sequence[Row], limit: int) -> "Page[Row]":
        """Of the `limit + 1` rows that a query asked for, keep `limit`."""
        return cls(data=rows[:limit], has_more=len(rows) > limit)
