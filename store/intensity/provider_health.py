"""Health of the carbon intensity provider of each zone: failures, last success and last error."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from store.database import Repository
from store.tables import Provider


class ProviderRepository(Repository):
    """Queries on providers."""

    def record_success(self, zone: str, source: str, *, at: datetime) -> None:
        """Record a success of a zone's source, which resets its consecutive failures."""
        added = insert(Provider).values(
            zone=zone, source=source, failures=0, consecutive_failures=0, last_success_at=at
        )
        self._session.execute(
            added.on_conflict_do_update(
                index_elements=["zone"], set_={"source": source, "consecutive_failures": 0, "last_success_at": at}
            )
        )

    def record_failure(self, zone: str, source: str, *, at: datetime, error: str) -> None:
        """Count a failure; `error` must contain no secret, as no `CarbonError` does."""
        added = insert(Provider).values(
            zone=zone, source=source, failures=1, consecutive_failures=1, last_failure_at=at, last_error=error
        )
        self._session.execute(
            added.on_conflict_do_update(
                index_elements=["zone"],
                set_={
                    "source": source,
                    "failures": Provider.failures + 1,
                    "consecutive_failures": Provider.consecutive_failures + 1,
                    "last_failure_at": at,
                    "last_error": error,
                },
            )
        )

    def all(self) -> Sequence[Provider]:
        """Return the health of every zone's source, by zone."""
        return self._session.scalars(select(Provider).order_by(Provider.zone)).all()
