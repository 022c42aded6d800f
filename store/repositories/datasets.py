"""The dataset aggregate: rows of a table, and the files of training rows that several of them may share."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from runtime.settings import Settings
from store.lifecycle.status import FINAL
from store.repositories.pagination import Page
from store.tables import Dataset, Job, TokenStatistics

BLOB_LOCKS = 0x6EE7_0002  # the namespace of the advisory locks on blobs


class DatasetDeleted(FileNotFoundError):
    """The rows of a dataset that was deleted are asked for."""


class DatasetRepository:
    """Queries on datasets that are not deleted, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, dataset: Dataset) -> None:
        self._session.add(dataset)
        self._session.flush()

    def get(self, dataset_id: str) -> Dataset | None:
        query = select(Dataset).where(Dataset.id == dataset_id, Dataset.deleted_at.is_(None))
        return self._session.scalars(query).one_or_none()

    def lock_for_use(self, dataset_id: str) -> Dataset | None:
        """The dataset, which cannot be deleted until this transaction ends: ask before a job comes to need it."""
        return self._locked(dataset_id, read=True)

    def lock_for_deletion(self, dataset_id: str) -> Dataset | None:
        """The dataset, once every submission that names it at this moment is through; no new one can begin."""
        return self._locked(dataset_id, read=False)

    def mark_deleted(self, dataset: Dataset, *, at: datetime) -> None:
        """From here on only jobs that are over name it; the tokens that were counted of it are forgotten."""
        dataset.deleted_at = at
        self._session.execute(delete(TokenStatistics).where(TokenStatistics.dataset_id == dataset.id))

    def list_open_jobs(self, dataset_id: str, *, limit: int) -> Sequence[str]:
        """The ids of the oldest jobs that need the dataset's rows: those that are not over."""
        query = select(Job.id).where(Job.dataset_id == dataset_id, Job.status.not_in(FINAL)).order_by(Job.id)
        return self._session.scalars(query.limit(limit)).all()

    def page(self, *, limit: int, after: str | None = None, owner: str | None = None) -> Page[Dataset]:
        """Datasets newest first, those older than the id `after`; without an owner, those of all."""
        query = select(Dataset).where(Dataset.deleted_at.is_(None)).order_by(Dataset.id.desc()).limit(limit + 1)
        if owner is not None:
            query = query.where(Dataset.owner == owner)
        if after is not None:
            query = query.where(Dataset.id < after)
        return Page.from_rows(self._session.scalars(query).all(), limit)

    def lock_blob(self, blob: str) -> None:
        """Until this transaction ends, nobody else puts the file of `blob` in its place or takes it away."""
        self._session.execute(select(func.pg_advisory_xact_lock(BLOB_LOCKS, func.hashtext(blob))))

    def is_blob_referenced(self, blob: str) -> bool:
        """Whether any dataset consists of this content."""
        query = select(Dataset.id).where(Dataset.blob == blob, Dataset.deleted_at.is_(None)).limit(1)
        return self._session.scalar(query) is not None

    def _locked(self, dataset_id: str, *, read: bool) -> Dataset | None:
        query = (
            select(Dataset)
            .where(Dataset.id == dataset_id, Dataset.deleted_at.is_(None))
            .with_for_update(read=read)
            .execution_options(populate_existing=True)
        )
        return self._session.scalars(query).one_or_none()


def locate_rows_file(session: Session, dataset_id: str, settings: Settings) -> Path:
    """Where a dataset's rows lie, as JSON Lines. Raises `DatasetDeleted`."""
    dataset = DatasetRepository(session).get(dataset_id)
    if dataset is None:
        raise DatasetDeleted(f"the dataset {dataset_id} has been deleted")
    return settings.dataset_file(dataset.blob)
