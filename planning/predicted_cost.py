"""What a job was to be expected to take when it began, by what other jobs had been measured to take until then."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from store.repositories.jobs import method_share
from store.tables import EnergyInterval, Epoch, Job

RECENT_EPOCHS = 20
_SECONDS = func.extract("epoch", EnergyInterval.finished_at - EnergyInterval.started_at)


@dataclass(frozen=True)
class PredictedRange:
    """An expected value, and what the quickest and the slowest of the epochs looked at would have come to."""

    expected: float
    low: float
    high: float

    def scale(self, factor: float) -> "PredictedRange":
        """Likewise of something proportional to it."""
        return PredictedRange(self.expected * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class PredictedCost:
    """Hours, kWh and gCO2e of all epochs; the last with what the site draws on top, None where nothing was known.

    `metered_hours` is how long the epochs then took, pauses left out. `rho` and `gco2e_per_kwh` are those of the
    first epoch, which are taken to stay.
    """

    hours: PredictedRange
    metered_hours: float
    energy_kwh: PredictedRange
    emissions_gco2e: PredictedRange | None
    rho: float
    gco2e_per_kwh: float | None
    basis: str


def predict_cost(session: Session, job: Job, *, pue: float) -> PredictedCost | None:
    """None for a job that has not begun, has no estimate of its FLOPs, or was the first to run on its device."""
    first = session.get(Epoch, (job.id, 1))
    if first is None or not job.estimate or job.device is None:
        return None
    rho = first.rho_asked if job.method == "greentrainer" else method_share(job)
    flops = job.estimate["full_flops"] * rho
    for basis, conditions in (("its model", [Job.model == job.model]), ("other models", [])):
        measured = _measured(session, job, first, *conditions)
        if measured is not None:
            hours, kwh, count = measured
            intensity = first.intensity_gco2e_per_kwh
            return PredictedCost(
                hours=hours.scale(flops),
                metered_hours=_metered_hours(session, job),
                energy_kwh=kwh.scale(flops),
                emissions_gco2e=None if intensity is None else kwh.scale(flops * pue * intensity),
                rho=rho,
                gco2e_per_kwh=intensity,
                basis=f"the {count} newest epochs of {basis} on {job.device} before it began",
            )
    return None


def _measured(
    session: Session, job: Job, first: Epoch, *conditions: ColumnElement[bool]
) -> tuple[PredictedRange, PredictedRange, int] | None:
    """Hours and kWh per FLOP of the newest epochs that were over when the job's first one began; and how many."""
    recent = (
        select(Epoch.job_id, Epoch.number, (Epoch.flops + func.coalesce(Epoch.probe_flops, 0.0)).label("flops"))
        .join(Job, Job.id == Epoch.job_id)
        .where(Epoch.finished_at <= first.started_at, Epoch.flops > 0, Job.device == job.device, *conditions)
        .order_by(Epoch.finished_at.desc())
        .limit(RECENT_EPOCHS)
        .subquery()
    )
    metered = (
        select(recent.c.flops, func.sum(_SECONDS), func.sum(EnergyInterval.energy_kwh))
        .join(EnergyInterval, (EnergyInterval.job_id == recent.c.job_id) & (EnergyInterval.epoch == recent.c.number))
        .group_by(recent.c.job_id, recent.c.number, recent.c.flops)
    )
    epochs = [(flops, float(taken) / 3600, kwh) for flops, taken, kwh in session.execute(metered)]
    if not epochs:
        return None
    hours, kwh = (_range([(epoch[0], epoch[column]) for epoch in epochs]) for column in (1, 2))
    return hours, kwh, len(epochs)


def _metered_hours(session: Session, job: Job) -> float:
    query = select(func.sum(_SECONDS)).where(EnergyInterval.job_id == job.id, EnergyInterval.epoch > 0)
    return float(session.scalar(query) or 0) / 3600


def _range(measured: list[tuple[float, float]]) -> PredictedRange:
    each = [value / flops for flops, value in measured]
    return PredictedRange(
        sum(value for _, value in measured) / sum(flops for flops, _ in measured), min(each), max(each)
    )
