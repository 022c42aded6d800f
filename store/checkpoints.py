"""The register of checkpoints: what is complete on disk, written by whoever held the lease then."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from store.jobs import JobRepository
from store.leases import Lease, held
from store.tables import Checkpoint

KEPT = 2


def registered(session: Session, job_id: str) -> Sequence[Checkpoint]:
    """A job's checkpoints, the furthest first."""
    query = (
        select(Checkpoint)
        .where(Checkpoint.job_id == job_id)
        .order_by(Checkpoint.step.desc(), Checkpoint.attempt.desc())
    )
    return session.scalars(query).all()


def register(
    session: Session, lease: Lease, *, name: str, step: int, epochs_done: int, size_bytes: int, at: datetime
) -> Sequence[str]:
    """Put a checkpoint that is complete on disk on record, and strike off all but the last `KEPT`; gives their names.

    Their files may go once this is committed. Raises `LeaseLost`.
    """
    held(session, lease)
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
    struck_off = [row.name for row in registered(session, lease.job_id)[KEPT:]]
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == lease.job_id, Checkpoint.name.in_(struck_off)))
    return struck_off


def strike_off_damaged(session: Session, lease: Lease, *, name: str, reason: str, at: datetime) -> None:
    """Take a checkpoint that cannot be gone on from off the record, and say why. Raises `LeaseLost`."""
    held(session, lease)
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == lease.job_id, Checkpoint.name == name))
    JobRepository(session).record(
        lease.job_id, "checkpoint.damaged", at=at, attempt=lease.attempt, checkpoint=name, reason=reason
    )


def note_failure(session: Session, lease: Lease, *, step: int, reason: str, at: datetime) -> None:
    """Tell that a checkpoint could not be written. Raises `LeaseLost`."""
    held(session, lease)
    JobRepository(session).record(
        lease.job_id, "checkpoint.failed", at=at, attempt=lease.attempt, step=step, reason=reason
    )
