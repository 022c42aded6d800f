"""Datasets, and their files of training rows, which several datasets may share."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import Select, delete, or_, select
from sqlalchemy.orm import Session

from runtime.settings import Settings
from store.database import LockNamespace, Repository, lock_name, lock_row
from store.lifecycle.status import FINAL
from store.repositories.pagination import Page, load_newest
from store.tables import Dataset, Job, TokenStatistics


class DatasetDeleted(FileNotFoundError):
    """The rows of a deleted dataset were requested."""


class DatasetRepository(Repository):
    """Queries on datasets that are not deleted."""

    def add(self, dataset: Dataset) -> None:
        self._session.add(dataset)
        self._session.flush()

    def get(self, dataset_id: str) -> Dataset | None:
        return self._session.scalars(_existing(dataset_id)).one_or_none()

    def lock_for_use(self, dataset_id: str) -> Dataset | None:
        """Return the dataset, locked against deletion; for a transaction that submits or retries a job."""
        return lock_row(self._session, _existing(dataset_id), read=True)

    def lock_for_deletion(self, dataset_id: str) -> Dataset | None:
        """Return the dataset, locked for its deletion, after pending submissions that name it."""
        return lock_row(self._session, _existing(dataset_id))

    def mark_deleted(self, dataset: Dataset, *, at: datetime) -> None:
        """Mark a dataset as deleted, and delete its token statistics."""
        dataset.deleted_at = at
        self._session.execute(delete(TokenStatistics).where(TokenStatistics.dataset_id == dataset.id))

    def list_open_jobs(self, dataset_id: str, *, limit: int) -> Sequence[str]:
        """Return the ids of the oldest open jobs, which need the dataset's rows to train or to validate."""
        needs = or_(Job.dataset_id == dataset_id, Job.validation_dataset_id == dataset_id)
        query = select(Job.id).where(needs, Job.status.not_in(FINAL)).order_by(Job.id)
        return self._session.scalars(query.limit(limit)).all()

    def list_jobs(self, dataset_id: str, *, limit: int, owner: str | None = None) -> Sequence[Job]:
        """Return the newest jobs that train on the dataset or are evaluated on it; of all owners without `owner`."""
        uses = or_(Job.dataset_id == dataset_id, Job.validation_dataset_id == dataset_id)
        query = select(Job).where(uses).order_by(Job.id.desc()).limit(limit)
        return self._session.scalars(query if owner is None else query.where(Job.owner == owner)).all()

    def page(self, *, limit: int, after: str | None = None, owner: str | None = None) -> Page[Dataset]:
        """Return datasets newest first, those older than the id `after`; of all owners without `owner`."""
        query = select(Dataset).where(Dataset.deleted_at.is_(None))
        if owner is not None:
            query = query.where(Dataset.owner == owner)
        return load_newest(self._session, query, Dataset.id, limit=limit, after=after)

    def lock_blob(self, blob: str) -> None:
        """Lock the file of `blob` against creation and deletion by other transactions."""
        lock_name(self._session, LockNamespace.DATASET_FILE, blob)

    def is_blob_referenced(self, blob: str) -> bool:
        """Return whether any dataset uses this file."""
        query = select(Dataset.id).where(Dataset.blob == blob, Dataset.deleted_at.is_(None)).limit(1)
        return self._session.scalar(query) is not None


def locate_rows_file(session: Session, dataset_id: str, settings: Settings) -> Path:
    """Return the path of a dataset's rows, a JSON Lines file. Raises `DatasetDeleted`."""
    dataset = DatasetRepository(session).get(dataset_id)
    if dataset is None:
        raise DatasetDeleted(f"the dataset {dataset_id} was deleted")
    return settings.dataset_file(dataset.blob)


def locate_validation_file(session: Session, job: Job, settings: Settings) -> Path | None:
    """Return the path of a job's validation rows; None without a validation dataset. Raises `DatasetDeleted`."""
    dataset_id = job.validation_dataset_id
    return None if dataset_id is None else locate_rows_file(session, dataset_id, settings)


def _existing(dataset_id: str) -> Select[Dataset]:
    return select(Dataset).where(Dataset.id == dataset_id, Dataset.deleted_at.is_(None))
