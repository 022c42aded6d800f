"""On whose behalf a request is made; what it may see and do follows from that alone."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Request

from api.access.sessions import BrowserSession
from api.http.problems import Problem
from store.repositories.keys import Role


@dataclass(frozen=True)
class Principal:
    """An owner, by one of their keys. Users see what is theirs; operators see everything.

    `session` is the browser's session that the request came with, None where the key itself was sent.
    """

    owner: str
    role: Role
    key_id: str | None = None
    session: BrowserSession | None = None

    @property
    def is_operator(self) -> bool:
        return self.role == "operator"

    @property
    def owner_filter(self) -> str | None:
        """The owner to whom a list is to be cut; None where there is no cut to make."""
        return None if self.is_operator else self.owner

    def can_read(self, owner: str | None) -> bool:
        """Whether what belongs to `owner` exists for this principal."""
        return self.is_operator or owner == self.owner


def _principal(request: Request) -> Principal:
    principal = getattr(request.state, "principal", None)
    assert isinstance(principal, Principal), (
        "`AuthenticationMiddleware` lets nobody else through to a route that asks for one"
    )
    return principal


PrincipalDep = Annotated[Principal, Depends(_principal)]


def _operator(principal: PrincipalDep) -> Principal:
    if not principal.is_operator:
        raise Problem(HTTPStatus.FORBIDDEN, "this is for operators: the key given is a user's")
    return principal


OperatorDep = Annotated[Principal, Depends(_operator)]
