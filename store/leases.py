"""Leases: a worker owns a job by a token that every one of its later writes must carry."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
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
    session: Session, job_id: str, *, worker_id: str, device: str, at: datetime, lease_seconds: float
) -> Lease | None:
    """Take a queued job. None where it is not queued (a second message, a cancelled job): then do nothing."""
    query = (
        select(Job)
        .where(Job.id == job_id, Job.status == JobStatus.QUEUED)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    job = session.scalars(query).one_or_none()
    if job is None:
        return None
    job.attempts += 1
    transition(session, job, JobStatus.RUNNING, at=at, worker=worker_id, attempt=job.attempts)
    job.lease_token = secrets.token_hex(16)
    job.lease_expires_at = at + timedelta(seconds=lease_seconds)
    job.worker_id, job.device, job.control = worker_id, device, "run"
    return Lease(job_id, job.lease_token, job.attempts)


def renew(session: Session, lease: Lease, *, at: datetime, lease_seconds: float) -> str:
    """Keep the lease for `lease_seconds` more, and bring back the control flag. Raises `LeaseLost`."""
    control: str | None = session.scalar(
        update(Job)
        .where(Job.id == lease.job_id, Job.lease_token == lease.token)
        .values(lease_expires_at=at + timedelta(seconds=lease_seconds))
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


def drain(session: Session, worker_id: str) -> Sequence[str]:
    """Ask the jobs that a worker holds to stop at their next step and go back to the queue; gives their ids."""
    asked = (
        update(Job)
        .where(Job.worker_id == worker_id, Job.status.in_(HELD_BY_A_WORKER), Job.control == "run")
        .values(control="drain")
        .returning(Job.id)
    )
    return session.scalars(asked).all()
