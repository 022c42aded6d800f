"""`If-Match` and `If-None-Match` of a policy (RFC 9110, 13.1): its writer says which version the next one follows."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Header

from api.http.etags import ETAG_LIST_PATTERN, MAX_ETAG_LIST_LENGTH, contains_etag
from api.http.problems import Problem, invalid_field

ETAG: dict[str, Any] = {
    "ETag": {
        "description": 'The version, such as `"3"`: sent as `If-Match`, it guards the next one',
        "schema": {"type": "string"},
    }
}


@dataclass(frozen=True)
class Precondition:
    """What the newest stored version has to be for a request to be done; anything where neither header is given."""

    if_match: str | None
    if_none_match: str | None

    def version_check(self, name: str) -> Callable[[int], None]:
        """Takes the newest version, 0 where there is none, and raises the 412 where the request rests on another."""

        def check(newest: int) -> None:
            now = f"its newest version is {newest}" if newest else "there is no policy of this name"
            if self.if_match is not None and not _names_version(self.if_match, newest, weak=False):
                detail = f"{name}: {now}, and If-Match names {self.if_match}: look at it again, and send its ETag"
                raise Problem(HTTPStatus.PRECONDITION_FAILED, detail)
            if self.if_none_match is not None and _names_version(self.if_none_match, newest, weak=True):
                detail = f"{name}: {now}, which If-None-Match: {self.if_none_match} rules out"
                raise Problem(HTTPStatus.PRECONDITION_FAILED, detail)

        return check


def policy_etag(version: int) -> str:
    """The strong ETag of a version of a policy, which never changes."""
    return f'"{version}"'


def _precondition(
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            max_length=MAX_ETAG_LIST_LENGTH,
            description='The ETag of the version that this one is to follow, such as `"3"`; `*` where any will do, but '
            "there has to be one. Where another is the newest, the answer is 412, and nothing is stored",
        ),
    ] = None,
    if_none_match: Annotated[
        str | None,
        Header(
            alias="If-None-Match",
            max_length=MAX_ETAG_LIST_LENGTH,
            description="`*` where there must be no policy of this name yet; else 412",
        ),
    ] = None,
) -> Precondition:
    for header, given in (("If-Match", if_match), ("If-None-Match", if_none_match)):
        if given is not None and ETAG_LIST_PATTERN.fullmatch(given) is None:
            raise invalid_field(header, f'given {given!r}: expected an ETag in its quotes, such as "3", or *')
    return Precondition(if_match, if_none_match)


PreconditionDep = Annotated[Precondition, Depends(_precondition)]


def _names_version(tags: str, newest: int, *, weak: bool) -> bool:
    return newest > 0 and contains_etag(tags, policy_etag(newest), weak=weak)
