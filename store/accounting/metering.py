"""Writes of an attempt's meter: joining and leaving a host, energy, closing. All raise `LeaseLost`."""

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from greencore.carbon import PricedInterval
from greencore.energy import EnergyInterval as MeteredInterval
from store.accounting.host_shares import allocate_host_energy, leave_host, lock_host
from store.lifecycle import progress
from store.lifecycle.leases import Lease, lock_leased_job
from store.tables import EnergyInterval, MeteredAttempt


def begin_sharing(
    session: Session, lease: Lease, *, host: str, gpus: Sequence[str], monotonic: Callable[[], float]
) -> None:
    """Start sharing the host's processor and memory energy with the attempt, from now on, unless it has joined."""
    job = lock_leased_job(session, lease)
    attempt = _attempt(session, lease)
    if attempt.host_from is None:
        lock_host(session, host)
        attempt.host, attempt.gpus, attempt.devices = host, list(gpus), max(job.gpus, len(gpus))
        attempt.host_from = attempt.host_seen = monotonic()


def end_sharing(session: Session, lease: Lease, *, monotonic: Callable[[], float]) -> None:
    """Stop sharing the host with the attempt, from now on."""
    lock_leased_job(session, lease)
    leave_host(session, _attempt(session, lease), monotonic=monotonic)


def store_energy(
    session: Session,
    lease: Lease,
    epoch: int,
    interval: MeteredInterval,
    *,
    price: Callable[[MeteredInterval], Sequence[PricedInterval]],
    evaluation: bool = False,
) -> bool:
    """Store the attempt's share of a metered interval, in parts of one share and one intensity each.

    `evaluation` marks it as energy of an evaluation.

    Returns False where the interval is stored already: its writer did not learn that it was committed.
    """
    lock_leased_job(session, lease)
    if _is_stored(session, lease, interval):
        return False
    attempt = _attempt(session, lease)
    parts = allocate_host_energy(session, attempt, interval)
    attempt.shared_out_kwh += interval.energy_kwh - sum(part.energy_kwh for part in parts)
    for part in parts:
        progress.add_energy(session, lease, epoch, part, price(part), evaluation=evaluation)
    return True


def close_meter(session: Session, lease: Lease, *, at: datetime, tracker_kwh: float | None) -> None:
    """Mark the attempt's energy as stored in full, and store CodeCarbon's total of it, less the shares of others."""
    attempt = _attempt(session, lease)
    if attempt.ended_at is not None:
        return
    lock_leased_job(session, lease)
    attempt.ended_at = at
    own_kwh = None if tracker_kwh is None else max(0.0, tracker_kwh - attempt.shared_out_kwh)
    progress.add_tracker_total(session, lease, at=at, tracker_kwh=own_kwh)


def _attempt(session: Session, lease: Lease) -> MeteredAttempt:
    return session.get_one(MeteredAttempt, (lease.job_id, lease.attempt), populate_existing=True)


def _is_stored(session: Session, lease: Lease, interval: MeteredInterval) -> bool:
    known = select(EnergyInterval.id).where(
        EnergyInterval.job_id == lease.job_id,
        EnergyInterval.attempt == lease.attempt,
        EnergyInterval.started_at == interval.start,
        EnergyInterval.finished_at > EnergyInterval.started_at,
    )
    return interval.end > interval.start and session.scalar(known.limit(1)) is not None
