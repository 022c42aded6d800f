"""`/keys`: who may use this service, and `/audit`: what they did. For operators."""

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


@router.post("/keys", status_code=HTTPStatus.CREATED, summary="Make a key")
def create_key(
    request: NewKeyRequest,
    response: Response,
    operator: OperatorDep,
    context: AppContextDep,
    session: SessionDep,
    now: NowDep,
) -> IssuedKeyOut:
    """Its text is in this answer and nowhere else: only a digest of it is stored."""
    if request.expires_at is not None and request.expires_at <= now:
        raise invalid_field("expires_at", f"{request.expires_at.isoformat()} has passed")
    key, text = issue_key(
        session,
        context.settings.secret,
        owner=request.owner,
        role=request.role,
        name=request.name,
        expires_at=request.expires_at,
        at=now,
    )
    response.headers["Location"] = f"/keys/{key.id}"
    return IssuedKeyOut(**KeyOut.of(key).model_dump(), key=text)


@router.get("/keys", summary="The keys, newest first")
def list_keys(
    operator: OperatorDep,
    session: SessionDep,
    limit: Limit = 50,
    after: OlderThan = None,
) -> Listing[KeyOut]:
    """Those that are revoked or have expired included, so that the audit log can be read."""
    return to_listing(KeyRepository(session).page(limit=limit, after=after), KeyOut.of)


@router.get("/keys/{key_id}", summary="One key", responses=problem_responses(HTTPStatus.NOT_FOUND))
def get_key(key_id: Id, operator: OperatorDep, session: SessionDep) -> KeyOut:
    """Whom it acts for, and when it was last used, to the minute."""
    key = KeyRepository(session).get(key_id)
    if key is None:
        raise _not_found(key_id)
    return KeyOut.of(key)


@router.delete(
    "/keys/{key_id}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Revoke a key",
    responses=problem_responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def revoke_key(key_id: Id, operator: OperatorDep, context: AppContextDep, now: NowDep) -> None:
    """For good, with the sessions that it began; what its owner made stays. Another API process notices in seconds."""
    try:
        # A transaction that has ended before the key is forgotten: a request in between would bring it back to mind.
        with context.database.session() as session:
            found = KeyRepository(session).revoke(key_id, at=now)
    except LastOperatorKey as last:
        raise Problem(
            HTTPStatus.CONFLICT, f"{key_id} is the last operator's key that can be used: make another one first"
        ) from last
    if not found:
        raise _not_found(key_id)
    context.authenticator.forget_key(key_id)


@router.get("/audit", summary="What was changed, and what was refused, newest first")
def list_audit(
    operator: OperatorDep,
    session: SessionDep,
    owner: Annotated[Id | None, Query(description="Only what was done with this owner's keys")] = None,
    limit: Limit = 50,
    after: Annotated[int | None, Query(ge=0, lt=2**63, description="Only those older than this id")] = None,
) -> Listing[AuditEntryOut]:
    """A row for each request of a method that changes something, and for each key or session that was refused."""
    return to_listing(AuditRepository(session).page(limit=limit, after=after, owner=owner), AuditEntryOut.of)


def _not_found(key_id: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"there is no key {key_id!r}")
