"""Responses stored for idempotency keys, in the same transaction as the effects of their requests."""

from datetime import datetime

from sqlalchemy import delete, select

from store.database import LockNamespace, Repository, lock_name
from store.tables import IdempotencyKey


class IdempotencyRepository(Repository):
    """Queries on stored responses."""

    def find_response(self, owner: str, key: str, *, since: datetime) -> IdempotencyKey | None:
        """Lock an idempotency key, and return its response from `since` or later; None for a new request.

        Waits for a concurrent request with the same key.
        """
        lock_name(self._session, LockNamespace.IDEMPOTENCY_KEY, f"{owner}\n{key}")
        query = select(IdempotencyKey).where(
            IdempotencyKey.owner == owner, IdempotencyKey.key == key, IdempotencyKey.created_at >= since
        )
        return self._session.scalars(query).one_or_none()

    def store_response(self, response: IdempotencyKey) -> None:
        """Store a response, replacing an expired one."""
        # Deleted rather than updated: retention may delete the expired row at the same time.
        of_key = IdempotencyKey.owner == response.owner, IdempotencyKey.key == response.key
        self._session.execute(delete(IdempotencyKey).where(*of_key))
        self._session.add(response)
