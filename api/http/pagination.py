"""The one shape of every list, and the parameters that page through it."""

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from store.repositories.pagination import Page

Item = TypeVar("Item")
Row = TypeVar("Row")

# Ids, names of zones, models and files: far more than any has.
LONGEST_ID = 200
Id = Annotated[str, Field(max_length=LONGEST_ID)]
OlderThan = Annotated[Id | None, Query(description="Only those older than this id")]
Limit = Annotated[int, Query(ge=1, le=200, description="At most this many")]


class Listing(BaseModel, Generic[Item]):
    """A part of a list, and whether more follows it."""

    # A generic model does not hand its docstring on.
    model_config = ConfigDict(json_schema_extra={"description": "A part of a list, and whether more follows it"})

    data: list[Item]
    has_more: bool


def to_listing(page: Page[Row], as_item: Callable[[Row], Item]) -> Listing[Item]:
    """A page of rows as it leaves the API."""
    return Listing(data=[as_item(row) for row in page.data], has_more=page.has_more)


def complete_listing(items: Sequence[Item]) -> Listing[Item]:
    """A list that is short enough to be given at once."""
    return Listing(data=list(items), has_more=False)
