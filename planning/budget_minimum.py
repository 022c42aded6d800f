"""Computes the minimum emissions of a job under a budget policy, so that an impossible budget can be refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from greencore.carbon import NoReading
from greencore.carbon.accounting.counterfactuals import cleanest_mean
from greencore.clock import HOUR
from greencore.policy import Budget
from planning.epoch_estimate import ASSUMED_SPREAD, EpochEstimate
from store.intensity.readings import GridRepository

MAX_LOOKAHEAD_HOURS = 366 * 24.0  # the latest deadline


@dataclass(frozen=True)
class MinimumBudget:
    """Emissions in gCO2e of all epochs at `rho_min`, started now or in the best hours that the gate may wait for.

    The evaluations during training are included. `certain_gco2e` is a lower bound under the uncertainty of the
    estimate. `basis` describes the inputs.
    """

    gco2e: float
    certain_gco2e: float
    basis: str


def compute_minimum_budget(
    session: Session,
    policy: Budget,
    estimate: EpochEstimate,
    *,
    epochs: float,
    pues: Mapping[str, float],
    deadline: datetime | None,
    at: datetime,
) -> MinimumBudget | None:
    """Compute the smallest budget that can be kept in the best of the zones in `pues`; None without any intensity."""
    hours = min(estimate.epoch_hours * epochs * policy.rho_min + estimate.evaluation_hours, MAX_LOOKAHEAD_HOURS)
    span = hours
    if policy.gate.mode != "none":
        span = (deadline - at) / HOUR if deadline is not None else hours + policy.gate.max_delay_hours
    found = [
        (least * pue, least, pue)
        for zone, pue in pues.items()
        if (least := _lowest_mean_intensity(session, zone, at, hours, max(span, hours))) is not None
    ]
    if not found:
        return None
    of_metered, least, pue = min(found)
    gco2e = of_metered * (estimate.epoch_kwh * epochs * policy.rho_min + estimate.evaluation_kwh)
    drawn = f" at a PUE of {pue:.4g}" if pue > 1 else ""
    evaluated = f" and {estimate.evaluation_kwh:.4g} kWh for evaluations" if estimate.evaluation_kwh else ""
    used = f"{estimate.epoch_kwh:.4g} kWh an epoch at ρ = 1{evaluated}, from {estimate.basis}"
    basis = f"{least:.4g} gCO2e/kWh{drawn}; {used}"
    return MinimumBudget(gco2e, gco2e / ASSUMED_SPREAD if estimate.assumed else gco2e, basis)


def _lowest_mean_intensity(session: Session, zone: str, at: datetime, hours: float, span: float) -> float | None:
    """Return the lowest mean intensity of `hours` of computing within `span` hours; None where unknown."""
    grid = GridRepository(session)
    basis = grid.newest_basis(zone)
    if basis is None or hours <= 0:
        return None
    end = at + span * HOUR
    forecast = grid.load_snapshot(zone, basis, at, end).forecast_or_newest(at)
    try:
        return cleanest_mean(forecast, at, end, hours).gco2e_per_kwh
    except NoReading:
        return None
