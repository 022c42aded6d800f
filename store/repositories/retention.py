"""Retention: ended jobs with removable files, and deletion of expired responses, sessions and deliveries."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, inspect, select, tuple_
from sqlalchemy.orm import load_only

from store.database import Repository, lock_row
from store.lifecycle.status import FINAL
from store.repositories.jobs import JobRepository
from store.repositories.lineage import LineageRepository
from store.tables import Checkpoint, Delivery, EndedSession, IdempotencyKey, Job, Table

DELETE_BATCH_SIZE = 1000


class RetentionRepository(Repository):
    """Queries and deletions for retention."""

    def find_jobs(self, job_ids: Collection[str]) -> Mapping[str, Job]:
        """Return the existing jobs among `job_ids` by id, with the columns that retention needs."""
        query = select(Job).options(load_only(Job.status, Job.finished_at, Job.files_removed_at))
        return {job.id: job for job in self._session.scalars(query.where(Job.id.in_(job_ids)))}

    def lock_ended(self, job_id: str) -> Job | None:
        """Return the ended job, locked against a retry; None where it is open or locked by another transaction."""
        query = select(Job).where(Job.id == job_id, Job.status.in_(FINAL))
        return lock_row(self._session, query, skip_locked=True)

    def find_needed_results(self, job_ids: Collection[str]) -> set[str]:
        """Return the jobs among `job_ids` whose results open jobs start from."""
        return LineageRepository(self._session).find_needed(job_ids)

    def delete_checkpoints(self, job_id: str) -> None:
        """Delete the records of a job's checkpoints, whose files the caller deletes."""
        self._session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id))

    def record_removal(self, job: Job, what: Collection[str], *, at: datetime) -> None:
        """Record that files of a locked job were removed; the rows of its artifacts are kept."""
        if "result" in what:
            job.files_removed_at = at
        JobRepository(self._session).record(job.id, "files.removed", at=at, what=sorted(what))

    def delete_idempotent_responses(self, *, before: datetime) -> None:
        """Delete responses for idempotency keys from before a time, at most `DELETE_BATCH_SIZE`."""
        self._delete(IdempotencyKey, IdempotencyKey.created_at < before)

    def delete_ended_sessions(self, *, before: datetime) -> None:
        """Delete signed-out sessions whose cookies expired before a time, at most `DELETE_BATCH_SIZE`."""
        self._delete(EndedSession, EndedSession.expires_at < before)

    def delete_finished_deliveries(self, *, before: datetime) -> None:
        """Delete deliveries made, or created and given up, before a time, at most `DELETE_BATCH_SIZE`."""
        ended_at = func.coalesce(Delivery.delivered_at, Delivery.created_at)
        self._delete(Delivery, Delivery.next_attempt_at.is_(None), ended_at < before)

    def _delete(self, table: type[Table], *old: ColumnElement[bool]) -> None:
        key = inspect(table).primary_key
        batch = select(*key).where(*old).limit(DELETE_BATCH_SIZE)
        # The condition is repeated for a row that was replaced by a new one in between.
        query = delete(table).where(tuple_(*key).in_(batch), *old)
        self._session.execute(query.execution_options(synchronize_session=False))
