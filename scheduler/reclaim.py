"""Takes back the jobs of workers that have fallen silent."""

from datetime import datetime

import structlog

from store.database import Database
from store.jobs import JobRepository
from store.settings import Settings
from store.status import JobStatus
from store.transitions import transition

log = structlog.get_logger()


def reclaim_lost_jobs(database: Database, settings: Settings, *, at: datetime) -> None:
    """Queue every job whose lease has run out, to go on from its last checkpoint; fail one that was lost too often."""
    with database.session() as session:
        jobs = JobRepository(session)
        for job in jobs.lost(at=at):
            job.lost_attempts += 1
            worker = job.worker_id
            if job.status is JobStatus.CANCELLING:
                transition(session, job, JobStatus.CANCELLED, at=at, reason=f"worker {worker} fell silent")
            elif job.lost_attempts >= settings.max_attempts:
                detail = f"its worker fell silent {job.lost_attempts} times, all that GREENTUNE_MAX_ATTEMPTS allows"
                jobs.fail(job, at=at, error={"title": "The workers of this job keep dying", "detail": detail})
            else:
                transition(
                    session, job, JobStatus.QUEUED, at=at, reason=f"worker {worker} fell silent", lost=job.lost_attempts
                )
            log.warning("job.reclaimed", job=job.id, worker=worker, lost_attempts=job.lost_attempts, now=job.status)
