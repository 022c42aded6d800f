"""Response model of every list, and the parameters for paging through it."""

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from store.repositories.pagination import Page

Item = TypeVar("Item")
Row = TypeVar("Row")

# Maximum length of ids and of names of zones, models and files; more than any has.
LONGEST_ID = 200
Id = Annotated[str, Field(max_length=LONGEST_ID)]
OlderThan = Annotated[Id | None, Query(description="Only items older than this id")]
Limit = Annotated[int, Query(ge=1, le=200, description="Maximum number of items")]


class Listing(BaseModel, Generic[Item]):
    """A page of a list, and whether more items follow."""

    # A generic model does not pass its docstring on.
    model_config = ConfigDict(json_schema_extra={"description": "A page of a list, and whether more items follow"})

    data: list[Item]
    has_more: bool


def to_listing(page: Page[Row], as_item: Callable[[Row], Item]) -> Listing[Item]:
    """Convert a page of rows to a response."""
    return Listing(data=[as_item(row) for row in page.data], has_more=page.has_more)


def complete_listing(items: Sequence[Item]) -> Listing[Item]:
    """Return a list that is short enough for one page."""
    return Listing(data=list(items), has_more=False)
