"""Predicts a started job's cost from the epochs of other jobs that were measured before it started."""

from dataclasses import dataclass

from sqlalchemy import func, select
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
    metered = select(func.sum(METERED_SECONDS)).where(EnergyInterval.job_id == job.id, EnergyInterval.epoch > 0)
    for basis, conditions in (("its model", [Job.model == job.model]), ("other models", [])):
        epochs = list_metered_epochs(
            session,
            Epoch.finished_at <= first.started_at,
            Job.device == job.device,
            *conditions,
            gpus=job.gpus,
            with_evaluations=True,
        )
        if epochs:
            kwh, intensity = [(flops, kwh) for flops, _, kwh in epochs], first.intensity_gco2e_per_kwh
            return PredictedCost(
                hours=_predict([(flops, seconds / 3600) for flops, seconds, _ in epochs], flops),
                metered_hours=float(session.scalar(metered) or 0) / 3600,
                energy_kwh=_predict(kwh, flops),
                emissions_gco2e=None if intensity is None else _predict(kwh, flops * pue * intensity),
                rho=rho,
                gco2e_per_kwh=intensity,
                basis=f"the {len(epochs)} newest epochs of {basis} on {job.device} before it began",
            )
    return None


def _predict(measured: list[tuple[float, float]], factor: float) -> PredictedRange:
    """Return the range of `factor` times the value per FLOP of measured (FLOPs, value)."""
    each = [value / flops for flops, value in measured]
    mean = sum(value for _, value in measured) / sum(flops for flops, _ in measured)
    return PredictedRange(mean * factor, min(each) * factor, max(each) * factor)
