"""Leases: a worker owns a job by a token that every one of its later writes must carry.

How long a lease lasts goes by the database's clock alone, which those who take and those who reclaim share.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store.status import HELD_BY_A_WORKER, JobStatus
from store.tables import Job
from store.transitions import transition


class LeaseLost(Exception):
    """The job belongs to somebody else by now, or to nobody: this worker must write nothing more."""


@dataclass(frozen=True)
class Lease:
    """The right to run one attempt of one job."""

    job_id: str
    token: str
    attempt: int


def claim(
    session: Session,
    job_id: str,
    *,
    worker_id: str,
    device: str,
    at: datetime,
    lease_seconds: float,
    task_id: str | None = None,
    zone: str | None = None,
) -> Lease | None:
    """Take a queued job. None where it is not queued (a second message, a cancelled job): then do nothing.

    `task_id` is the message's, `at` the time of the event; the lease runs from the database's own now. With the `zone`
    in which the worker stands, a job that was placed in another since its message was sent is not taken either.
    """
    query = (
        select(Job)
        .where(Job.id == job_id, Job.status == JobStatus.QUEUED)
        # Whoever holds the row holds it for a moment: what it is then decides, and a message is not taken in vain.
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    job = session.scalars(query).one_or_none()
    if job is None or (zone is not None and job.zone != zone):
        return None
    job.attempts += 1
    transition(session, job, JobStatus.RUNNING, at=at, worker=worker_id, attempt=job.attempts)
    job.lease_token = secrets.token_hex(16)
    job.lease_expires_at = func.now() + timedelta(seconds=lease_seconds)
    job.worker_id, job.task_id, job.device = worker_id, task_id, device
    job.control, job.control_at = "run", None
    session.flush()
    return Lease(job_id, job.lease_token, job.attempts)


def renew(session: Session, lease: Lease, *, lease_seconds: float) -> str:
    """Keep the lease for `lease_seconds` from now, and bring back the control flag. Raises `LeaseLost`.

    One that has run out is kept all the same, as long as nobody has taken the job back.
    """
    control: str | None = session.scalar(
        update(Job)
        .where(Job.id == lease.job_id, Job.lease_token == lease.token)
        .values(lease_expires_at=func.now() + timedelta(seconds=lease_seconds), revision=Job.revision)
        .returning(Job.control)
    )
    if control is None:
        raise LeaseLost(lease.job_id)
    return control


def held(session: Session, lease: Lease) -> Job:
    """The leased job, locked for a write of its worker. Raises `LeaseLost`."""
    query = (
        select(Job)
        .where(Job.id == lease.job_id, Job.lease_token == lease.token, Job.status.in_(HELD_BY_A_WORKER))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    job = session.scalars(query).one_or_none()
    if job is None:
        raise LeaseLost(lease.job_id)
    return job
