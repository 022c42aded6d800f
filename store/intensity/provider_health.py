"""Health of the carbon intensity provider of each zone: failures, last success and last error."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from store.database import Repository
from store.tables import Provider


class ProviderRepository(Repository):
    """Queries on providers."""

    def record_success(self, zone: str, source: str, *, at: datetime) -> None:
        """Record a success of a zone's source, which resets its consecutive failures."""
        seen = {"source": source, "consecutive_failures": 0, "last_success_at": at}
        self._upsert(zone, {"failures": 0, **seen}, seen)

    def record_failure(self, zone: str, source: str, *, at: datetime, error: str) -> None:
        """Count a failure; `error` must contain no secret, as no `CarbonError` does."""
        failed = {"source": source, "last_failure_at": at, "last_error": error}
        counts = {"failures": Provider.failures + 1, "consecutive_failures": Provider.consecutive_failures + 1}
        self._upsert(zone, {"failures": 1, "consecutive_failures": 1, **failed}, {**counts, **failed})

    def all(self) -> Sequence[Provider]:
        """Return the health of every zone's source, by zone."""
        return self._session.scalars(select(Provider).order_by(Provider.zone)).all()

    def _upsert(self, zone: str, new: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
        added = insert(Provider).values(zone=zone, **new)
        self._session.execute(added.on_conflict_do_update(index_elements=["zone"], set_=changed))
