"""ETags of jobs and of lists of jobs: a poll of what has not changed is answered 304, from one small query."""

import hashlib
import json
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Header, Response

from api.jobs.schemas import JobOut

ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
# A job's revision counts what changes in it; another release may show the same job otherwise.
_SCHEMA = json.dumps(JobOut.model_json_schema(mode="serialization"), sort_keys=True)
REPRESENTATION = hashlib.sha256(_SCHEMA.encode()).hexdigest()[:8]

IfNoneMatch = Annotated[
    str | None,
    Header(alias="If-None-Match", description="ETags of what you hold: where one is right still, the answer is 304"),
]
ETAG = {"ETag": {"description": "Changes with anything in this answer", "schema": {"type": "string"}}}
CACHED: dict[int | str, dict[str, Any]] = {
    HTTPStatus.OK.value: {"headers": ETAG},
    HTTPStatus.NOT_MODIFIED.value: {"description": "What you hold is right still", "headers": ETAG},
}


def job_tag(revision: int) -> str:
    """The strong ETag of a job at a revision."""
    return f'"{REPRESENTATION}-{revision}"'


def page_tag(revisions: Iterable[tuple[str, int]], *, has_more: bool) -> str:
    """The strong ETag of a page of jobs, by their ids and revisions."""
    text = json.dumps([REPRESENTATION, has_more, *revisions])
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def matches(if_none_match: str, tag: str) -> bool:
    """Whether a list of ETags names `tag`, weak ones included; `*` names every one."""
    return if_none_match.strip() == "*" or tag in ENTITY_TAG.findall(if_none_match)


def headers(tag: str) -> dict[str, str]:
    """What makes a client ask again each time, and its own cache keep the answer."""
    return {"ETag": tag, "Cache-Control": "private, no-cache"}


def not_modified(tag: str) -> Response:
    """The answer that says only: what you hold is right still."""
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers(tag))
