"""What may be removed by now: files of jobs that are over, first answers, and deliveries that have long been made."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from store.lifecycle.status import FINAL, JobStatus
from store.repositories.jobs import JobRepository
from store.tables import Checkpoint, Delivery, EndedSession, IdempotencyKey, Job

DELETE_BATCH_SIZE = 1000


@dataclass(frozen=True)
class JobRetentionState:
    """A job as retention sees it: whether it is over, since when, and whether its result is gone already."""

    over: bool
    succeeded: bool
    finished_at: datetime | None
    files_removed: bool


class RetentionRepository:
    """Queries and deletions of what nobody needs any more, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find_jobs(self, job_ids: Collection[str]) -> Mapping[str, JobRetentionState]:
        """Those of these jobs that there are."""
        query = select(Job.id, Job.status, Job.finished_at, Job.files_removed_at).where(Job.id.in_(job_ids))
        return {
            job_id: JobRetentionState(
                status in FINAL, status is JobStatus.SUCCEEDED, finished_at, removed_at is not None
            )
            for job_id, status, finished_at, removed_at in self._session.execute(query)
        }

    def lock_ended(self, job_id: str) -> Job | None:
        """The job, which nobody can retry until this transaction ends; None where it is open, or held by another."""
        query = select(Job).where(Job.id == job_id, Job.status.in_(FINAL)).with_for_update(skip_locked=True)
        return self._session.scalars(query.execution_options(populate_existing=True)).one_or_none()

    def delete_checkpoints(self, job_id: str) -> None:
        """Forget the checkpoints of a job: their files are removed in the same transaction."""
        self._session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id))

    def record_removal(self, job: Job, what: Collection[str], *, at: datetime) -> None:
        """Tell that files of a locked job are gone; rows of its artifacts stay, and say what was there."""
        if "result" in what:
            job.files_removed_at = at
        JobRepository(self._session).record(job.id, "files.removed", at=at, what=sorted(what))

    def delete_idempotent_responses(self, *, before: datetime) -> None:
        """Delete first answers to repeatable requests from before a time, a limited number at once."""
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
        """Delete the records of signed-out sessions whose cookies expired before a time, a limited number at once."""
        old = select(EndedSession.id).where(EndedSession.expires_at < before).limit(DELETE_BATCH_SIZE)
        self._session.execute(
            delete(EndedSession).where(EndedSession.id.in_(old)).execution_options(synchronize_session=False)
        )

    def delete_finished_deliveries(self, *, before: datetime) -> None:
        """Delete deliveries that were made before a time, or given up and older, a limited number at once."""
        over = Delivery.next_attempt_at.is_(None), func.coalesce(Delivery.delivered_at, Delivery.created_at) < before
        old = select(Delivery.id).where(*over).limit(DELETE_BATCH_SIZE)
        self._session.execute(delete(Delivery).where(Delivery.id.in_(old)).execution_options(synchronize_session=False))
