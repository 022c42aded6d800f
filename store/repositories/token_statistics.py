"""Token counts of datasets by model: requested by readers, dispatched by the scheduler, counted by a worker."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Update, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from store.database import Repository, wake_scheduler
from store.tables import TokenStatistics

# Limit of repeated dispatches after a request: counting may kill a worker.
REQUEST_LIFETIME = timedelta(hours=1)
MAX_DISPATCHED = 100


@dataclass(frozen=True)
class CountRequest:
    """What is counted: the dataset's rows in a model's tokens, in a prompt format and with the turns that it learns."""

    dataset_id: str
    model: str
    prompt_format: str = "plain"
    train_on: str = "assistant"


class TokenStatisticsRepository(Repository):
    """Queries on token statistics."""

    def request_counts(self, wanted: CountRequest, *, at: datetime, error_lifetime: timedelta) -> TokenStatistics:
        """Return the present statistics, and request a count where there was none within `REQUEST_LIFETIME`.

        Counts of an earlier version, which has no preview, are made again. An error is returned for `error_lifetime`
        before the count is requested again.
        """
        new = insert(TokenStatistics).values(**asdict(wanted), asked_at=at)
        outdated = or_(
            TokenStatistics.error.is_not(None) & (TokenStatistics.counted_at < at - error_lifetime),
            TokenStatistics.counts.is_not(None) & TokenStatistics.preview.is_(None),
            TokenStatistics.counted_at.is_(None) & (TokenStatistics.asked_at < at - REQUEST_LIFETIME),
        )
        nothing = dict.fromkeys(("dispatched_at", "counted_at", "counts", "preview", "error"))
        asked = new.on_conflict_do_update(
            index_elements=list(asdict(wanted)), set_={"asked_at": at, **nothing}, where=outdated
        ).returning(TokenStatistics.model)
        if self._session.scalar(asked) is not None:
            wake_scheduler(self._session)
        return self._session.get_one(TokenStatistics, asdict(wanted), populate_existing=True)

    def list_of_dataset(self, dataset_id: str) -> Sequence[TokenStatistics]:
        """Return a dataset's statistics, also those still being counted, by model."""
        query = select(TokenStatistics).where(TokenStatistics.dataset_id == dataset_id)
        order = (TokenStatistics.model, TokenStatistics.prompt_format, TokenStatistics.train_on)
        return self._session.scalars(query.order_by(*order)).all()

    def lock_undispatched(self, *, at: datetime, redispatch_after: timedelta) -> Sequence[TokenStatistics]:
        """Return locked pending statistics not dispatched within `redispatch_after`, at most `MAX_DISPATCHED`."""
        sent = TokenStatistics.dispatched_at
        query = (
            select(TokenStatistics)
            .where(
                TokenStatistics.counted_at.is_(None),
                TokenStatistics.asked_at >= at - REQUEST_LIFETIME,
                or_(sent.is_(None), sent < at - redispatch_after),
            )
            .order_by(TokenStatistics.asked_at)
            .limit(MAX_DISPATCHED)
            .with_for_update(skip_locked=True)
        )
        return self._session.scalars(query).all()

    def is_pending(self, wanted: CountRequest) -> bool:
        """Return whether the statistics are requested and not yet counted."""
        found = self._session.get(TokenStatistics, asdict(wanted))
        return found is not None and found.counted_at is None

    def put_preview(self, wanted: CountRequest, preview: Mapping[str, Any]) -> None:
        """Store the preview of a pending count; does nothing for a dataset that was deleted meanwhile."""
        self._session.execute(self._update(wanted).values(preview=preview))

    def put(
        self,
        wanted: CountRequest,
        *,
        at: datetime,
        counts: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Store counts or an error; does nothing for a dataset that was deleted meanwhile."""
        self._session.execute(self._update(wanted).values(counted_at=at, counts=counts, error=error))

    @staticmethod
    def _update(wanted: CountRequest) -> Update:
        return update(TokenStatistics).filter_by(**asdict(wanted))
