"""Predicts a started job's cost from the epochs of other jobs that were measured before it started."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from planning.epoch_estimate import METERED_SECONDS, list_metered_epochs
from store.repositories.jobs import method_share
from store.tables import EnergyInterval, Epoch, Job


@dataclass(frozen=True)
class PredictedRange:
    """Expected value, and its range by the fastest and the slowest of the measured epochs."""

    expected: float
    low: float
    high: float

    def scale(self, factor: float) -> "PredictedRange":
        """Return the range times `factor`."""
        return PredictedRange(self.expected * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class PredictedCost:
    """Predicted hours, kWh and gCO2e of all epochs; gCO2e include the PUE, None where no intensity was known.

    `metered_hours` is the real duration of the epochs without pauses. `rho` and `gco2e_per_kwh` are those of the first
    epoch, assumed constant.
    """

    hours: PredictedRange
    metered_hours: float
    energy_kwh: PredictedRange
    emissions_gco2e: PredictedRange | None
    rho: float
    gco2e_per_kwh: float | None
    basis: str


def predict_cost(session: Session, job: Job, *, pue: float) -> PredictedCost | None:
    """Predict the cost of a started job; None without a start, an estimate, or epochs measured on its device before."""
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
    """Return hours and kWh per FLOP of the newest epochs that had finished before `first`, and their number."""
    epochs = list_metered_epochs(session, Epoch.finished_at <= first.started_at, Job.device == job.device, *conditions)
    if not epochs:
        return None
    hours = _range([(flops, seconds / 3600) for flops, seconds, _ in epochs])
    return hours, _range([(flops, kwh) for flops, _, kwh in epochs]), len(epochs)


def _metered_hours(session: Session, job: Job) -> float:
    query = select(func.sum(METERED_SECONDS)).where(EnergyInterval.job_id == job.id, EnergyInterval.epoch > 0)
    return float(session.scalar(query) or 0) / 3600


def _range(measured: list[tuple[float, float]]) -> PredictedRange:
    each = [value / flops for flops, value in measured]
    return PredictedRange(
        sum(value for _, value in measured) / sum(flops for flops, _ in measured), min(each), max(each)
    )
