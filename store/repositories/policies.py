"""Policies: named, versioned, never changed in place."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import distinct_on

from store.database import Repository
from store.repositories.pagination import Page, load_page
from store.tables import Policy


class PolicyRepository(Repository):
    """Queries on policies."""

    def add_version(
        self, name: str, body: Mapping[str, Any], *, at: datetime, check: Callable[[int], None] | None = None
    ) -> Policy:
        """Store the next version of a policy, with other writers of the name locked out.

        `check` is called under the lock with the newest version, 0 where there is none; nothing is stored if it raises.
        """
        self._lock_name(name)
        latest = self._session.scalar(select(func.max(Policy.version)).where(Policy.name == name)) or 0
        if check is not None:
            check(latest)
        policy = Policy(name=name, version=latest + 1, body=dict(body), created_at=at)
        self._session.add(policy)
        self._session.flush()
        return policy

    def delete(self, name: str) -> bool:
        """Delete every version of a policy; return False where there is none. Jobs keep their copies."""
        self._lock_name(name)
        query = delete(Policy).where(Policy.name == name).returning(Policy.version)
        return len(self._session.scalars(query).all()) > 0

    def latest(self, name: str) -> Policy | None:
        """Return the newest version of a policy."""
        query = select(Policy).where(Policy.name == name).order_by(Policy.version.desc()).limit(1)
        return self._session.scalars(query).one_or_none()

    def page(self, *, limit: int, after: str | None = None) -> Page[Policy]:
        """Return the newest version of each policy by name, those with names after `after`."""
        query = select(Policy).ext(distinct_on(Policy.name)).order_by(Policy.name, Policy.version.desc())
        if after is not None:
            query = query.where(Policy.name > after)
        return load_page(self._session, query, limit=limit)

    def names(self, *, limit: int) -> Sequence[str]:
        """Return the first names of policies in alphabetical order."""
        query = select(Policy.name).distinct().order_by(Policy.name).limit(limit)
        return self._session.scalars(query).all()

    def _lock_name(self, name: str) -> None:
        self._session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))
