"""ETags as HTTP has them (RFC 9110): how a request names them, and the answers that carry them."""

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
        description="ETags of what you hold: where one is right still, the answer is 304",
    ),
]
ETAG = {"ETag": {"description": "Changes with anything in this answer", "schema": {"type": "string"}}}
CACHED_RESPONSES: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK.value: {"headers": ETAG},
    HTTPStatus.NOT_MODIFIED.value: {"description": "What you hold is right still", "headers": ETAG},
}


def contains_etag(tags: str, tag: str, *, weak: bool) -> bool:
    """Whether a list of ETags names the strong `tag`; `*` names every one, and weak ones count where `weak` says so."""
    if tags.strip() == "*":
        return True
    given = ETAG_PATTERN.findall(tags)
    return tag in ([each.removeprefix("W/") for each in given] if weak else given)


def matches_etag(if_none_match: str | None, tag: str) -> bool:
    """Whether the request holds what `tag` names already; not where it has no `If-None-Match`."""
    return if_none_match is not None and contains_etag(if_none_match, tag, weak=True)


def etag_headers(tag: str) -> dict[str, str]:
    """What makes a client ask again each time, and its own cache keep the answer."""
    return {"ETag": tag, "Cache-Control": "private, no-cache"}


def not_modified_response(tag: str) -> Response:
    """The answer that says only: what you hold is right still."""
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=etag_headers(tag))
