"""The one function that moves a job from one status to the next."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from runtime.tracing import add_event
from store.accounting.lost_energy import end_attempt_metering
from store.lifecycle.status import ALLOWED_TRANSITIONS, FINAL, HELD_BY_A_WORKER, JobStatus
from store.repositories.deliveries import enqueue_end_deliveries
from store.tables import Event, Job


class TransitionRefused(Exception):
    """A job cannot go from where it stands to where it was sent."""

    def __init__(self, job_id: str, current: JobStatus, wanted: JobStatus) -> None:
        ways = ", ".join(sorted(ALLOWED_TRANSITIONS[current])) or "nowhere"
        super().__init__(f"{job_id} is {current}: it can go to {ways}, not to {wanted}")
        self.job_id, self.current, self.wanted = job_id, current, wanted


def transition(
    session: Session, job: Job, to: JobStatus, *, at: datetime, reason: str | None = None, **data: Any
) -> None:
    """Move a job that this transaction has locked, and write the event beside it, and at its end to its owner's
    webhooks.

    Whenever the job leaves a worker, clears the lease and what the worker was asked for, and stores an estimate of the
    energy that the worker did not store (`store.accounting.lost_energy`). Raises `TransitionRefused` unless
    `ALLOWED_TRANSITIONS` has it.
    """
    if to not in ALLOWED_TRANSITIONS[job.status]:
        raise TransitionRefused(job.id, job.status, to)
    if job.status in HELD_BY_A_WORKER and to not in HELD_BY_A_WORKER:
        end_attempt_metering(session, job, at=at)
    event = Event(job_id=job.id, at=at, type=f"job.{to}", data={"from": job.status, "to": to, "reason": reason, **data})
    session.add(event)
    add_event(event.type, greentune__job=job.id)
    job.status, job.reason = to, reason
    if to not in HELD_BY_A_WORKER:
        job.lease_token = job.lease_expires_at = job.worker_id = None
        job.control, job.control_at = "run", None
    if to in (JobStatus.VALIDATING, JobStatus.QUEUED):
        job.dispatched_at = None
    if to is JobStatus.QUEUED:
        job.queued_at = at
        job.ready_at = job.ready_at or at
    if to is JobStatus.RUNNING:
        job.started_at = job.started_at or at
    job.finished_at = at if to in FINAL else None
    if to in FINAL or to is JobStatus.PAUSED:
        job.eta = None
    if to in FINAL:
        enqueue_end_deliveries(session, job, at=at)
