"""The first answers to requests that may be repeated: written with what they promise, in one transaction."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.tables import IdempotencyKey

KEY_LOCKS = 0x6EE7_0003  # the namespace of the advisory locks on keys


class IdempotencyRepository:
    """Queries on first answers, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find_response(self, owner: str, key: str, *, since: datetime) -> IdempotencyKey | None:
        """What was answered to this key at `since` or later; None where the caller is to answer now.

        Waits for another request with the same key that is under way; the next one waits until this transaction ends.
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
        """Store an answer, in the place of one that is too old to be given again."""
        answer = {
            "request_sha256": request_sha256,
            "status": status,
            "headers": dict(headers),
            "body": body,
            "created_at": at,
        }
        added = insert(IdempotencyKey).values(owner=owner, key=key, **answer)
        self._session.execute(added.on_conflict_do_update(index_elements=["owner", "key"], set_=answer))
