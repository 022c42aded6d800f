"""Principal of a request, which alone determines what the request may read and change."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from api.access.sessions import BrowserSession
from api.http.problems import Problem
from store.repositories.keys import Role
from store.tables import Dataset, Job, Webhook

Owned = TypeVar("Owned", Dataset, Job, Webhook)


@dataclass(frozen=True)
class Principal:
    """An owner, authenticated by a key. Users see their own resources; operators see all.

    `session` is the browser's session that the request came with, None if the key itself was sent.
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
        """Owner to restrict a list to; None for no restriction."""
        return None if self.is_operator else self.owner

    def filter_owner(self, asked: str | None) -> str | None:
        """Return `owner_filter`, restricted to the owner asked for. Raises 403 where a user asks for another owner."""
        if asked is not None and not self.can_read(asked):
            raise Problem(HTTPStatus.FORBIDDEN, "owner: only operators see what belongs to other owners")
        return asked if asked is not None else self.owner_filter

    def can_read(self, owner: str | None) -> bool:
        """Return whether resources of `owner` are visible to this principal."""
        return self.is_operator or owner == self.owner

    def require_readable(self, row: Owned | None, name: str) -> Owned:
        """Return a row that is visible to this principal. Raises the same 404 for any other as for a missing one."""
        if row is None or not self.can_read(row.owner):
            raise Problem(HTTPStatus.NOT_FOUND, f"there is no {name}")
        return row


def find_principal(request: Request) -> Principal | None:
    """Return the principal that `AuthenticationMiddleware` set; None before it did, and on public paths."""
    principal = getattr(request.state, "principal", None)
    return principal if isinstance(principal, Principal) else None


def _principal(request: Request) -> Principal:
    principal = find_principal(request)
    assert principal is not None, "`AuthenticationMiddleware` sets the principal of every route that depends on it"
    return principal


PrincipalDep = Annotated[Principal, Depends(_principal)]


def _operator(principal: PrincipalDep) -> Principal:
    if not principal.is_operator:
        raise Problem(HTTPStatus.FORBIDDEN, "this is for operators: the key given is a user's")
    return principal


OperatorDep = Annotated[Principal, Depends(_operator)]
