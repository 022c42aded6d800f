"""Registers checkpoints that are complete on disk; written by the lease holder."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from store.lifecycle.leases import Lease, lock_leased_job, record_attempt_event
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
    session: Session,
    lease: Lease,
    *,
    name: str,
    step: int,
    epochs_done: int,
    size_bytes: int,
    at: datetime,
    kept_step: int | None = None,
) -> Sequence[str]:
    """Record a checkpoint, and remove all but the last `MAX_CHECKPOINTS`; return the names of the removed ones.

    That of `kept_step`, the best evaluation's, is marked as best and not removed.

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
    known = list_job_checkpoints(session, lease.job_id)
    best = next((row for row in known if row.step == kept_step), None)
    for row in known:
        row.best = row is best
    removed = [row.name for row in known[MAX_CHECKPOINTS:] if not row.best]
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == lease.job_id, Checkpoint.name.in_(removed)))
    return removed


def remove_damaged_checkpoint(session: Session, lease: Lease, *, name: str, reason: str, at: datetime) -> None:
    """Remove a damaged checkpoint from the register, and record the reason. Raises `LeaseLost`."""
    record_attempt_event(session, lease, "checkpoint.damaged", at=at, checkpoint=name, reason=reason)
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == lease.job_id, Checkpoint.name == name))
