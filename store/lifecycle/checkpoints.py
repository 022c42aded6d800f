"""Registers checkpoints that are complete on disk; written by the lease holder."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from store.lifecycle.leases import Lease, lock_leased_job
from store.repositories.jobs import JobRepository
from store.tables import Checkpoint

MAX_CHECKPOINTS = 2


def list_job_checkpoints(session: Session, job_id: str) -> Sequence[Checkpoint]:
    """Return a job's checkpoints, the most advanced first."""
    query = (
        select(Checkpoint)
        .where(Checkpoint.job_id == job_id)
        .order_by(Checkpoint.step.desc(), Checkpoint.attempt.desc())
    )
    return session.scalars(query).all()


def register_checkpoint(
    session: Session, lease: Lease, *, name: str, step: int, epochs_done: int, size_bytes: int, at: datetime
) -> Sequence[str]:
    """Record a checkpoint, and remove all but the last `MAX_CHECKPOINTS`; return the names of the removed ones.

    Their files may be deleted once this is committed. Raises `LeaseLost`.
    """
    lock_leased_job(session, lease)
    session.merge(
        Checkpoint(
            job_id=lease.job_id,
            name=name,
            attempt=lease.attempt,
            step=step,
            epochs_done=epochs_done,
            bytes=size_bytes,
            created_at=at,
        )
    )
    session.flush()
    removed = [row.name for row in list_job_checkpoints(session, lease.job_id)[MAX_CHECKPOINTS:]]
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == lease.job_id, Checkpoint.name.in_(removed)))
    return removed


def remove_damaged_checkpoint(session: Session, lease: Lease, *, name: str, reason: str, at: datetime) -> None:
    """Remove a damaged checkpoint from the register, and record the reason. Raises `LeaseLost`."""
    lock_leased_job(session, lease)
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == lease.job_id, Checkpoint.name == name))
    JobRepository(session).record(
        lease.job_id, "checkpoint.damaged", at=at, attempt=lease.attempt, checkpoint=name, reason=reason
    )


def record_checkpoint_failure(session: Session, lease: Lease, *, step: int, reason: str, at: datetime) -> None:
    """Record an event that a checkpoint could not be written. Raises `LeaseLost`."""
    lock_leased_job(session, lease)
    JobRepository(session).record(
        lease.job_id, "checkpoint.failed", at=at, attempt=lease.attempt, step=step, reason=reason
    )
