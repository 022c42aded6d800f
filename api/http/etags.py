"""ETags (RFC 9110): request headers, comparison, and responses."""

import re
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
ETAG_PATTERN = re.compile(_TAG)
MAX_ETAG_LIST_LENGTH = 4000  # as many as fit into one header of most servers
ETAG_LIST_PATTERN = re.compile(rf"\s*(?:\*|{_TAG}(?:\s*,\s*{_TAG})*)\s*")

IfNoneMatch = Annotated[
    str | None,
    Header(
        alias="If-None-Match",
        max_length=MAX_ETAG_LIST_LENGTH,
        description="ETags of the client's copies: if one is current, the response is 304",
    ),
]
ETAG = {"ETag": {"description": "Changes with any change of this response", "schema": {"type": "string"}}}
CACHED_RESPONSES: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK.value: {"headers": ETAG},
    HTTPStatus.NOT_MODIFIED.value: {"description": "The client's copy is current", "headers": ETAG},
}


def contains_etag(tags: str, tag: str, *, weak: bool) -> bool:
    """Return whether a list of ETags contains the strong `tag`; `*` matches any, and weak ones count if `weak`."""
    if tags.strip() == "*":
        return True
    given = ETAG_PATTERN.findall(tags)
    return tag in ([each.removeprefix("W/") for each in given] if weak else given)


def etag_headers(tag: str) -> dict[str, str]:
    """Return headers that have a client's own cache keep the response, and revalidate it each time."""
    return {"ETag": tag, "Cache-Control": "private, no-cache"}


class NotModified(Exception):
    """The client's copy is current: answered 304. Raised, so that a route returns nothing but its data."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag


def check_etag(if_none_match: str | None, tag: str) -> None:
    """Raise `NotModified` if `If-None-Match` contains `tag`."""
    if if_none_match is not None and contains_etag(if_none_match, tag, weak=True):
        raise NotModified(tag)


async def respond_not_modified(request: Request, error: Exception) -> Response:
    """Return the 304 for a client whose copy is current."""
    assert isinstance(error, NotModified)
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=etag_headers(error.tag))


class Revalidation:
    """Dependency of a route whose responses clients may keep and revalidate by their ETag."""

    def __init__(self, response: Response, if_none_match: IfNoneMatch = None) -> None:
        self._response, self._if_none_match = response, if_none_match

    @property
    def has_copy(self) -> bool:
        """Whether the client sent the ETag of a copy."""
        return self._if_none_match is not None

    def check(self, tag: str) -> None:
        """Give the response the ETag `tag`. Raises `NotModified` if the client's copy has it."""
        check_etag(self._if_none_match, tag)
        self._response.headers.update(etag_headers(tag))


RevalidationDep = Annotated[Revalidation, Depends()]
