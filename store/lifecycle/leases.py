"""Leases: a worker holds a job by a token that each of its writes must carry.

Leases expire by the database's clock, which workers and schedulers share.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from greencore.energy import UnreportedPeriod
from store.database import lock_row
from store.lifecycle.status import HELD_BY_A_WORKER, JobStatus
from store.lifecycle.transitions import transition
from store.tables import Event, Job, MeteredAttempt


class LeaseLost(Exception):
    """The worker no longer holds the job, and must not write to it."""


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
    pue: float = 1.0,
    assumed_power_w: float | None = None,
) -> Lease | None:
    """Claim a queued job. Returns None where it is not queued, after a duplicate message or a cancel.

    `task_id` is the message's, `at` the time of the event; the lease runs by the database's clock. With the worker's
    `zone`, a job that was since placed in another zone is not claimed either. Energy lost with the worker is estimated
    with its site's `pue` and its device's `assumed_power_w`.
    """
    # Waits for a lock, which is held briefly, rather than skipping it: the message would be lost.
    job = lock_row(session, select(Job).where(Job.id == job_id, Job.status == JobStatus.QUEUED))
    if job is None or (zone is not None and job.zone != zone):
        return None
    job.attempts += 1
    transition(session, job, JobStatus.RUNNING, at=at, worker=worker_id, attempt=job.attempts)
    job.lease_token = secrets.token_hex(16)
    job.lease_expires_at = func.now() + timedelta(seconds=lease_seconds)
    job.worker_id, job.task_id, job.device = worker_id, task_id, device
    job.control, job.control_at = "run", None
    session.add(
        MeteredAttempt(
            job_id=job_id,
            attempt=job.attempts,
            claimed_at=func.now(),
            seen_at=func.now(),
            unstored_since=at,
            pue=pue,
            assumed_power_w=assumed_power_w,
        )
    )
    session.flush()
    return Lease(job_id, job.lease_token, job.attempts)


def renew(
    session: Session,
    lease: Lease,
    *,
    lease_seconds: float,
    unstored: UnreportedPeriod | None = None,
    host_seconds: float | None = None,
) -> str:
    """Extend the lease to `lease_seconds` from now, and return the job's control flag. Raises `LeaseLost`.

    An expired lease is extended too, unless the job was reclaimed. `unstored` is the period whose energy is not stored
    yet, estimated if the worker is lost; `host_seconds` is the time of its host's monotonic clock.
    """
    control: str | None = session.scalar(
        update(Job)
        .where(Job.id == lease.job_id, Job.lease_token == lease.token)
        .values(lease_expires_at=func.now() + timedelta(seconds=lease_seconds), revision=Job.revision)
        .returning(Job.control)
    )
    if control is None:
        raise LeaseLost(lease.job_id)
    seen: dict[str, Any] = {"seen_at": func.now()}
    if host_seconds is not None:
        seen["host_seen"] = host_seconds
    if unstored is not None:
        seen |= {"unstored_since": unstored.since, "unstored_seconds": unstored.seconds}
    attempt = MeteredAttempt.job_id == lease.job_id, MeteredAttempt.attempt == lease.attempt
    session.execute(update(MeteredAttempt).where(*attempt, MeteredAttempt.ended_at.is_(None)).values(seen))
    return control


def lock_leased_job(session: Session, lease: Lease) -> Job:
    """Return the job locked for a write by its lease holder. Raises `LeaseLost`."""
    held = Job.id == lease.job_id, Job.lease_token == lease.token, Job.status.in_(HELD_BY_A_WORKER)
    job = lock_row(session, select(Job).where(*held))
    if job is None:
        raise LeaseLost(lease.job_id)
    return job


def record_attempt_event(session: Session, lease: Lease, event_type: str, /, *, at: datetime, **data: Any) -> None:
    """Append an event of the attempt to the job's history. Raises `LeaseLost`."""
    lock_leased_job(session, lease)
    session.add(Event(job_id=lease.job_id, at=at, type=event_type, data={"attempt": lease.attempt, **data}))
