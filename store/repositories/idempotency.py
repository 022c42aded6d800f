"""Responses stored for idempotency keys, in the same transaction as the effects of their requests."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.database import LockNamespace, lock_name
from store.tables import IdempotencyKey


class IdempotencyRepository:
    """Queries on stored responses, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find_response(self, owner: str, key: str, *, since: datetime) -> IdempotencyKey | None:
        """Lock an idempotency key, and return its response from `since` or later; None for a new request.

        Waits for a concurrent request with the same key.
        """
        lock_name(self._session, LockNamespace.IDEMPOTENCY_KEY, f"{owner}\n{key}")
        query = select(IdempotencyKey).where(
            IdempotencyKey.owner == owner, IdempotencyKey.key == key, IdempotencyKey.created_at >= since
        )
        return self._session.scalars(query).one_or_none()

    def store_response(
        self,
        owner: str,
        key: str,
        *,
        request_sha256: str,
        status: int,
        headers: Mapping[str, str],
        body: str,
        at: datetime,
    ) -> None:
        """Store a response, replacing an expired one."""
        answer = {
            "request_sha256": request_sha256,
            "status": status,
            "headers": dict(headers),
            "body": body,
            "created_at": at,
        }
        added = insert(IdempotencyKey).values(owner=owner, key=key, **answer)
        self._session.execute(added.on_conflict_do_update(index_elements=["owner", "key"], set_=answer))
