"""What a worker writes about a job it holds: decisions, progress, energy, results. All raise `LeaseLost`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from greencore.carbon import PricedInterval
from greencore.energy import EnergyInterval as MeteredInterval
from greencore.policy import Decision
from store.jobs import JobRepository
from store.leases import Lease, held
from store.status import JobStatus
from store.tables import Artifact, EnergyInterval, Epoch
from store.transitions import transition


def start_training(
    session: Session, lease: Lease, *, at: datetime, steps: int, epochs_done: int, precision: str
) -> None:
    """Note that the model is loaded, and after which epoch the run goes on: the last one with a checkpoint."""
    job = held(session, lease)
    job.steps, job.epochs_done = steps, epochs_done
    job.steps_done = steps * epochs_done // job.epochs
    JobRepository(session).record(
        job.id, "training.started", at=at, attempt=lease.attempt, epochs_done=epochs_done, precision=precision
    )


def start_epoch(session: Session, lease: Lease, number: int, decision: Decision, *, at: datetime) -> None:
    """Store an epoch's decision; an epoch begun by a lost attempt is begun anew."""
    job = held(session, lease)
    job.rho = decision.rho
    begun = session.get(Epoch, (lease.job_id, number))
    if begun is not None:
        session.delete(begun)
        session.flush()
    session.add(
        Epoch(
            job_id=lease.job_id,
            number=number,
            attempt=lease.attempt,
            started_at=at,
            finished_at=None,
            rho_asked=decision.rho,
            reason=decision.reason,
            intensity_gco2e_per_kwh=decision.intensity_gco2e_per_kwh,
            intensity_source=decision.source,
            intensity_age_seconds=decision.age_seconds,
            intensity_estimated=decision.estimated,
        )
    )
    JobRepository(session).record(
        job.id, "epoch.started", at=at, epoch=number, rho=decision.rho, reason=decision.reason
    )


def report_step(session: Session, lease: Lease, *, steps: int, steps_done: int, loss: float | None) -> None:
    """Note how far the run has come, for whoever watches it."""
    job = held(session, lease)
    job.steps, job.steps_done = steps, steps_done
    if loss is not None:
        job.loss = loss


def finish_epoch(session: Session, lease: Lease, number: int, *, at: datetime, measured: Mapping[str, Any]) -> None:
    """Close an epoch with what was measured of it (columns of `Epoch` by name)."""
    job = held(session, lease)
    epoch = session.get_one(Epoch, (lease.job_id, number))
    for column, value in measured.items():
        setattr(epoch, column, value)
    epoch.finished_at = at
    job.epochs_done = number
    JobRepository(session).record(
        job.id, "epoch.finished", at=at, epoch=number, rho_reached=epoch.rho_reached, loss=epoch.train_loss
    )


def add_energy(
    session: Session, lease: Lease, epoch: int, interval: MeteredInterval, price: PricedInterval | None
) -> None:
    """Store a metered interval with its price, and add both to the job's totals.

    `price` is None where no intensity is known yet: the energy counts, its emissions wait for a price.
    """
    job = held(session, lease)
    session.add(
        EnergyInterval(
            job_id=lease.job_id,
            epoch=epoch,
            attempt=lease.attempt,
            started_at=interval.start,
            finished_at=interval.end,
            cpu_kwh=interval.cpu_kwh,
            gpu_kwh=interval.gpu_kwh,
            ram_kwh=interval.ram_kwh,
            method={"cpu": interval.cpu_method, "gpu": interval.gpu_method, "ram": interval.ram_method},
            intensity_gco2e_per_kwh=None if price is None else price.intensity_gco2e_per_kwh,
            intensity_source=None if price is None else ", ".join(price.sources),
            intensity_estimated=price is None or price.estimated,
            emissions_gco2e=None if price is None else price.emissions_gco2e,
        )
    )
    job.energy_kwh += interval.energy_kwh
    if price is not None:
        job.emissions_gco2e += price.emissions_gco2e


def succeed(
    session: Session,
    lease: Lease,
    *,
    at: datetime,
    artifacts: Sequence[Artifact],
    evaluation: Mapping[str, Any],
) -> None:
    """End a job with its result."""
    job = held(session, lease)
    for artifact in artifacts:
        session.merge(artifact)
    job.evaluation = dict(evaluation)
    transition(session, job, JobStatus.SUCCEEDED, at=at, artifacts=len(artifacts))


def fail(session: Session, lease: Lease, *, at: datetime, error: Mapping[str, Any]) -> None:
    """End a job with an error: `title`, `detail` and, where one is to blame, `field`."""
    JobRepository(session).fail(held(session, lease), at=at, error=error)
