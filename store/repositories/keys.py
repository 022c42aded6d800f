"""API keys, stored as digests, and ended browser sessions."""

from datetime import datetime, timedelta
from typing import Literal

import structlog
from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError

from store.database import Repository, describe_outage
from store.repositories.pagination import Page, load_newest
from store.tables import ApiKey, EndedSession

log = structlog.get_logger()

Role = Literal["user", "operator"]

USE_RECORD_INTERVAL = timedelta(minutes=1)


class LastOperatorKey(Exception):
    """The last usable operator's key cannot be revoked: no other could be created."""


class KeyRepository(Repository):
    """Queries on keys."""

    def add(self, key: ApiKey) -> None:
        self._session.add(key)
        self._session.flush()

    def get(self, key_id: str) -> ApiKey | None:
        return self._session.get(ApiKey, key_id)

    def by_digest(self, digest: str) -> ApiKey | None:
        """Return the key with this digest, usable or not."""
        return self._session.scalars(select(ApiKey).where(ApiKey.digest == digest)).one_or_none()

    def page(self, *, limit: int, after: str | None = None) -> Page[ApiKey]:
        """Return keys newest first, those older than the id `after`."""
        return load_newest(self._session, select(ApiKey), ApiKey.id, limit=limit, after=after)

    def all(self) -> list[ApiKey]:
        """Return every key, newest first."""
        return list(self._session.scalars(select(ApiKey).order_by(ApiKey.id.desc())))

    def has_operator(self, *, at: datetime) -> bool:
        """Return whether there is a usable operator's key."""
        query = select(ApiKey.id).where(ApiKey.role == "operator", _usable(at)).limit(1)
        return self._session.scalar(query) is not None

    def revoke(self, key_id: str, *, at: datetime, leave_an_operator: bool = True) -> bool:
        """Revoke a key; return False where there is none. A revoked key is unchanged.

        Raises `LastOperatorKey` where no usable operator's key would be left; concurrent revocations are serialised.
        """
        key = self.get(key_id)
        if key is None:
            return False
        if key.role == "operator" and leave_an_operator:
            usable = select(ApiKey.id).where(ApiKey.role == "operator", _usable(at)).order_by(ApiKey.id)
            if list(self._session.scalars(usable.with_for_update())) == [key_id]:
                raise LastOperatorKey(key_id)
        self._session.execute(
            update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=at)
        )
        return True

    def end_session(self, session_id: str, *, expires_at: datetime) -> None:
        """Record that a browser session was signed out, until its cookie expires."""
        ended = insert(EndedSession).values(id=session_id, expires_at=expires_at)
        self._session.execute(ended.on_conflict_do_nothing())

    def is_session_ended(self, session_id: str) -> bool:
        """Return whether a browser session was signed out."""
        return self._session.get(EndedSession, session_id) is not None

    def record_use(self, key: ApiKey, *, at: datetime) -> None:
        """Record the use of a key, at most once a minute; a read-only database is logged and does not fail requests."""
        if key.last_used_at is not None and key.last_used_at > at - USE_RECORD_INTERVAL:
            return
        try:
            with self._session.begin_nested():
                key.last_used_at = at
        except OperationalError as error:
            log.warning("key.use_not_noted", key=key.id, error=describe_outage(error))


def get_unusable_reason(key: ApiKey, *, at: datetime) -> Literal["revoked", "expired"] | None:
    """Return why a key is unusable; None where it is usable."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= at else None


def _usable(at: datetime) -> ColumnElement[bool]:
    return ApiKey.revoked_at.is_(None) & or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > at)
