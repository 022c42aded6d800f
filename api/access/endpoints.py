"""`/keys` and `/audit`: API keys and the audit log, for operators."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.access.keys import issue_key
from api.access.principal import OperatorDep
from api.access.schemas import AuditEntryOut, IssuedKeyOut, KeyOut, NewKeyRequest
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.pagination import Id, Limit, Listing, OlderThan, to_listing
from api.http.problems import Problem, invalid_field, problem_responses
from store.repositories.audit import AuditRepository
from store.repositories.keys import KeyRepository, LastOperatorKey

router = APIRouter(tags=["access"], responses=problem_responses(HTTPStatus.FORBIDDEN))


@router.post("/keys", status_code=HTTPStatus.CREATED, summary="Create a key")
def create_key(
    request: NewKeyRequest,
    response: Response,
    operator: OperatorDep,
    context: AppContextDep,
    session: SessionDep,
    now: NowDep,
) -> IssuedKeyOut:
    """The key's text is in this response only: the service stores a digest of it."""
    if request.expires_at is not None and request.expires_at <= now:
        raise invalid_field("expires_at", f"{request.expires_at.isoformat()} has passed")
    key, text = issue_key(session, context.settings.secret, at=now, **request.model_dump())
    response.headers["Location"] = f"/keys/{key.id}"
    return IssuedKeyOut.from_row(key, key=text)


@router.get("/keys", summary="List keys, newest first")
def list_keys(
    operator: OperatorDep,
    session: SessionDep,
    limit: Limit = 50,
    after: OlderThan = None,
) -> Listing[KeyOut]:
    """Includes revoked and expired keys, which the audit log refers to."""
    return to_listing(KeyRepository(session).page(limit=limit, after=after), KeyOut.from_row)


@router.get("/keys/{key_id}", summary="Get a key", responses=problem_responses(HTTPStatus.NOT_FOUND))
def get_key(key_id: Id, operator: OperatorDep, session: SessionDep) -> KeyOut:
    """Owner, role and time of last use, to the minute."""
    key = KeyRepository(session).get(key_id)
    if key is None:
        raise _not_found(key_id)
    return KeyOut.from_row(key)


@router.delete(
    "/keys/{key_id}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Revoke a key",
    responses=problem_responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def revoke_key(key_id: Id, operator: OperatorDep, context: AppContextDep, now: NowDep) -> None:
    """Ends the key and its sessions for good; its owner's data stays. Other API processes notice within seconds."""
    try:
        # The transaction ends before the key is dropped: a request in between would cache it again.
        with context.database.session() as session:
            found = KeyRepository(session).revoke(key_id, at=now)
    except LastOperatorKey as last:
        raise Problem(
            HTTPStatus.CONFLICT, f"{key_id} is the last operator's key that can be used: create another one first"
        ) from last
    if not found:
        raise _not_found(key_id)
    context.authenticator.forget_key(key_id)


@router.get("/audit", summary="List audit records, newest first")
def list_audit(
    operator: OperatorDep,
    session: SessionDep,
    owner: Annotated[Id | None, Query(description="Only requests with this owner's keys")] = None,
    limit: Limit = 50,
    after: Annotated[int | None, Query(ge=0, lt=2**63, description="Only records older than this id")] = None,
) -> Listing[AuditEntryOut]:
    """A record for each request whose method may change something, and for each refused key or session."""
    return to_listing(AuditRepository(session).page(limit=limit, after=after, owner=owner), AuditEntryOut.from_row)


def _not_found(key_id: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"there is no key {key_id!r}")
