"""Moves a job from one status to another; the only function that does."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from runtime.tracing import add_event
from store.accounting.lost_energy import end_attempt_metering
from store.lifecycle.status import ALLOWED_TRANSITIONS, FINAL, HELD_BY_A_WORKER, JobStatus
from store.repositories.deliveries import enqueue_end_deliveries
from store.tables import Event, Job


class TransitionRefused(Exception):
    """A transition between two statuses that `ALLOWED_TRANSITIONS` does not contain."""

    def __init__(self, job_id: str, current: JobStatus, wanted: JobStatus) -> None:
        allowed = ", ".join(sorted(ALLOWED_TRANSITIONS[current])) or "none"
        super().__init__(f"{job_id} is {current}: expected a transition to {allowed}, given {wanted}")


def transition(
    session: Session, job: Job, to: JobStatus, *, at: datetime, reason: str | None = None, **data: Any
) -> None:
    """Move a locked job to another status, record the event, and at its end enqueue messages to its owner's webhooks.

    When the job leaves a worker, clears the lease and control flag, and stores an estimate of the energy that the
    worker did not store (`store.accounting.lost_energy`). Raises `TransitionRefused`.
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
