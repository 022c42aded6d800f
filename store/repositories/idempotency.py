"""Responses stored for idempotency keys, in the same transaction as the effects of their requests."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.tables import IdempotencyKey

KEY_LOCKS = 0x6EE7_0003  # the namespace of the advisory locks on keys


class IdempotencyRepository:
    """Queries on stored responses, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find_response(self, owner: str, key: str, *, since: datetime) -> IdempotencyKey | None:
        """Lock an idempotency key, and return its response from `since` or later; None for a new request.

        Waits for a concurrent request with the same key.
        """
        lock = func.pg_advisory_xact_lock(KEY_LOCKS, func.hashtext(f"{owner}\n{key}"))
        self._session.execute(select(lock))
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
