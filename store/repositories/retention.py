"""Retention: ended jobs with removable files, and deletion of expired responses, sessions and deliveries."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from store.database import lock_row
from store.lifecycle.status import FINAL, JobStatus
from store.repositories.jobs import JobRepository
from store.tables import Checkpoint, Delivery, EndedSession, IdempotencyKey, Job

DELETE_BATCH_SIZE = 1000


@dataclass(frozen=True)
class JobRetentionState:
    """State of a job for retention: whether and when it ended, and whether its result was removed already."""

    over: bool
    succeeded: bool
    finished_at: datetime | None
    files_removed: bool


class RetentionRepository:
    """Queries and deletions for retention, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find_jobs(self, job_ids: Collection[str]) -> Mapping[str, JobRetentionState]:
        """Return the retention state of the existing jobs among `job_ids`."""
        query = select(Job.id, Job.status, Job.finished_at, Job.files_removed_at).where(Job.id.in_(job_ids))
        return {
            job_id: JobRetentionState(
                status in FINAL, status is JobStatus.SUCCEEDED, finished_at, removed_at is not None
            )
            for job_id, status, finished_at, removed_at in self._session.execute(query)
        }

    def lock_ended(self, job_id: str) -> Job | None:
        """Return the ended job, locked against a retry; None where it is open or locked by another transaction."""
        query = select(Job).where(Job.id == job_id, Job.status.in_(FINAL))
        return lock_row(self._session, query, skip_locked=True)

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
        old = (
            select(IdempotencyKey.owner, IdempotencyKey.key)
            .where(IdempotencyKey.created_at < before)
            .limit(DELETE_BATCH_SIZE)
        )
        for owner, key in self._session.execute(old).all():
            self._session.execute(
                delete(IdempotencyKey).where(
                    IdempotencyKey.owner == owner, IdempotencyKey.key == key, IdempotencyKey.created_at < before
                )
            )

    def delete_ended_sessions(self, *, before: datetime) -> None:
        """Delete signed-out sessions whose cookies expired before a time, at most `DELETE_BATCH_SIZE`."""
        old = select(EndedSession.id).where(EndedSession.expires_at < before).limit(DELETE_BATCH_SIZE)
        self._session.execute(
            delete(EndedSession).where(EndedSession.id.in_(old)).execution_options(synchronize_session=False)
        )

    def delete_finished_deliveries(self, *, before: datetime) -> None:
        """Delete deliveries made, or created and given up, before a time, at most `DELETE_BATCH_SIZE`."""
        over = Delivery.next_attempt_at.is_(None), func.coalesce(Delivery.delivered_at, Delivery.created_at) < before
        old = select(Delivery.id).where(*over).limit(DELETE_BATCH_SIZE)
        self._session.execute(delete(Delivery).where(Delivery.id.in_(old)).execution_options(synchronize_session=False))
