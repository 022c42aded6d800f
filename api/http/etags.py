"""ETags (RFC 9110): request headers, comparison, and responses."""

import re
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Header, Response

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


def matches_etag(if_none_match: str | None, tag: str) -> bool:
    """Return whether `If-None-Match` contains `tag`; False without the header."""
    return if_none_match is not None and contains_etag(if_none_match, tag, weak=True)


def etag_headers(tag: str) -> dict[str, str]:
    """Return headers that have a client's own cache keep the response, and revalidate it each time."""
    return {"ETag": tag, "Cache-Control": "private, no-cache"}


def not_modified_response(tag: str) -> Response:
    """Return the 304 for a client whose copy is current."""
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=etag_headers(tag))
