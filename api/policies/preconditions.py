"""`If-Match` and `If-None-Match` of a policy (RFC 9110, 13.1): its writer states which version the next one follows."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Header

from api.http.etags import ETAG_LIST_PATTERN, MAX_ETAG_LIST_LENGTH, contains_etag
from api.http.problems import Problem, invalid_field

ETAG: dict[str, Any] = {
    "ETag": {
        "description": 'The version, such as `"3"`; sent as `If-Match`, it makes the next write conditional',
        "schema": {"type": "string"},
    }
}


@dataclass(frozen=True)
class Precondition:
    """Condition on the newest stored version; without either header, any version meets it."""

    if_match: str | None
    if_none_match: str | None

    def check(self, name: str, newest: int) -> None:
        """Raise the 412 if the request expects another version than the newest one (0: none)."""
        now = f"its newest version is {newest}" if newest else "there is no policy of this name"
        if self.if_match is not None and not _names_version(self.if_match, newest, weak=False):
            detail = f"{name}: {now}, and If-Match names {self.if_match}: read it again, and send its ETag"
            raise Problem(HTTPStatus.PRECONDITION_FAILED, detail)
        if self.if_none_match is not None and _names_version(self.if_none_match, newest, weak=True):
            detail = f"{name}: {now}, which If-None-Match: {self.if_none_match} rules out"
            raise Problem(HTTPStatus.PRECONDITION_FAILED, detail)


def policy_etag(version: int) -> str:
    """Return the strong ETag of a version of a policy, which never changes."""
    return f'"{version}"'


def _precondition(
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            max_length=MAX_ETAG_LIST_LENGTH,
            description='ETag of the version that this one follows, such as `"3"`; `*` for any existing version. If '
            "another one is the newest, the response is 412, and nothing is stored",
        ),
    ] = None,
    if_none_match: Annotated[
        str | None,
        Header(
            alias="If-None-Match",
            max_length=MAX_ETAG_LIST_LENGTH,
            description="`*`: only if there is no policy of this name yet; else 412",
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
