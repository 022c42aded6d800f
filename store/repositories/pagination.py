"""Page of a list, shared by all repositories; ids and numbers that grow with time are the cursor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

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


def load_page(session: Session, query: Select[Row], *, limit: int) -> Page[Row]:
    """Return the first page of a query."""
    return Page.from_rows(session.scalars(query.limit(limit + 1)).all(), limit)


def load_newest(
    session: Session, query: Select[Row], key: InstrumentedAttribute[Any], *, limit: int, after: Any = None
) -> Page[Row]:
    """Return a page of a query, newest first: by descending `key`, those below `after` where it is given."""
    if after is not None:
        query = query.where(key < after)
    return load_page(session, query.order_by(key.desc()), limit=limit)
