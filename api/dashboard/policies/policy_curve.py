"""`/dashboard/policies/curve`: ρ over the intensity, by the very code that decides it for a run."""

import math
from dataclasses import replace
from datetime import datetime, timedelta

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.access.principal import PrincipalDep
from api.dependencies import AppContext, AppContextDep, NowDep, SessionDep
from api.figures import format_number
from api.policies.parsing import resolve_policy
from api.policies.simulation_request import SimulationRequest
from greencore.carbon import IntensitySeries, Reading
from greencore.carbon.fallback import ResolvedIntensity
from greencore.policy import (
    Budget,
    IntensityMissing,
    Linear,
    Percentile,
    Policy,
    PolicyContext,
    Price,
    Steps,
    decide_rho,
)
from greencore.policy.models import IntensityPolicy
from store.intensity.readings import GridRepository

SHOWN_GCO2E_PER_KWH = 700.0
MAX_SHOWN_GCO2E_PER_KWH = 5000.0
MARGIN = 1.15  # beyond the policy's highest bound
POINTS = 701
# Ranks are looked up reading by reading, and plans made anew, for each point.
POINTS_OF_RANKS_AND_PLANS = 71
MAX_RANKED_READINGS = 2_000

router = APIRouter()


class PointNow(BaseModel):
    """What an epoch would get that began now."""

    gco2e_per_kwh: float
    rho: float | None
    reason: str


class CurveOut(BaseModel):
    """ρ at each intensity; null where the run would end rather than begin an epoch."""

    gco2e_per_kwh: list[float]
    rho: list[float | None]
    basis: str = Field(description="What the curve rests on, in words; why there is none where the lists are empty")
    without_intensity: str = Field(description="What happens while no intensity is known")
    pause_above: float | None
    resume_below: float | None
    now: PointNow | None


@router.post("/dashboard/policies/curve")
def policy_curve(
    request: SimulationRequest, principal: PrincipalDep, context: AppContextDep, session: SessionDep, now: NowDep
) -> CurveOut:
    """Takes what a simulation takes, and faults of the policy are told likewise."""
    policy = resolve_policy(request.policy, session)
    known = None if request.zone is None else _in_force(request.zone, context, session, now)
    window = _percentile_window(policy, request.zone, session, now)
    template = PolicyContext(
        now=now,
        reading=None,
        window=window,
        epochs_left=request.epochs,
        epoch_hours=request.work_hours / request.epochs,
        epoch_kwh=request.work_hours / request.epochs * request.power_w / 1000,
    )
    drawn = not isinstance(policy, Percentile) or len(window) > 0  # with no past to rank in, nothing is known
    points = _points(policy) if drawn else []
    return CurveOut(
        gco2e_per_kwh=points,
        rho=[_rho(policy, template, _synthetic_reading(intensity, now)) for intensity in points],
        basis=_basis(policy, request, window),
        without_intensity=_without_intensity(policy, template),
        pause_above=policy.gate.pause_above,
        resume_below=policy.gate.resume_below,
        now=_current_point(policy, template, known) if drawn and known is not None else None,
    )


def _in_force(zone: str, context: AppContext, session: Session, now: datetime) -> ResolvedIntensity | None:
    grid = GridRepository(session)
    signal = grid.newest_signal(zone)
    if signal is None:
        return None
    settings = context.settings
    return grid.resolve_intensity(
        zone, signal, now, stale_limit=settings.stale_limit, static=settings.static_mean(zone)
    )


def _percentile_window(policy: Policy, zone: str | None, session: Session, now: datetime) -> IntensitySeries:
    """The past that `percentile` ranks in; the newest part of one that is too long to be ranked at every point."""
    grid = GridRepository(session)
    signal = None if zone is None else grid.newest_signal(zone)
    if not isinstance(policy, Percentile) or zone is None or signal is None:
        return IntensitySeries()
    stored = grid.readings_between(zone, signal, now - timedelta(hours=policy.window_hours), now)
    return IntensitySeries(stored.readings[-MAX_RANKED_READINGS:])


def _points(policy: Policy) -> list[float]:
    bounds = [policy.gate.pause_above or 0.0]
    if isinstance(policy, Linear):
        bounds.append(policy.dirty)
    if isinstance(policy, Steps):
        bounds += [step.up_to for step in policy.steps if step.up_to is not None]
    most = min(max(SHOWN_GCO2E_PER_KWH, max(bounds) * MARGIN), MAX_SHOWN_GCO2E_PER_KWH)
    count = POINTS if isinstance(policy, IntensityPolicy) else POINTS_OF_RANKS_AND_PLANS
    step = math.ceil(most / (count - 1))
    return [float(step * index) for index in range(count)]


def _synthetic_reading(intensity: float, now: datetime) -> Reading:
    """A reading made up for one point of the curve."""
    return Reading(
        zone="any", start=now, end=now + timedelta(hours=1), gco2e_per_kwh=intensity, source="curve", fetched_at=now
    )


def _rho(policy: Policy, template: PolicyContext, reading: Reading) -> float | None:
    decision = decide_rho(policy, replace(template, reading=reading))
    return None if decision.ends_run else decision.rho


def _current_point(policy: Policy, template: PolicyContext, known: ResolvedIntensity) -> PointNow:
    decision = decide_rho(policy, replace(template, reading=known.to_labelled_reading(), step=known.step))
    return PointNow(
        gco2e_per_kwh=known.reading.gco2e_per_kwh,
        rho=None if decision.ends_run else decision.rho,
        reason=decision.reason,
    )


def _basis(policy: Policy, request: SimulationRequest, window: IntensitySeries) -> str:
    epoch = f"{format_number(request.work_hours / request.epochs * request.power_w / 1000)} kWh an epoch at ρ = 1"
    if isinstance(policy, Budget):
        return (
            f"ρ depends on the course of the run: on what is spent and on the forecast. Drawn is the first of "
            f"{request.epochs} epochs, at {epoch}, were the grid to stay at this intensity for the whole run; "
            "no line is drawn where the budget does not last for it"
        )
    if isinstance(policy, Price):
        return (
            "ρ depends on the course of the run: on what an epoch takes off the loss. Drawn is the first epoch, at "
            f"{epoch}, with the loss per epoch that is assumed until one is measured"
        )
    if isinstance(policy, Percentile):
        if not len(window):
            return "ρ depends on the zone's past, and nothing is stored of it: no curve can be drawn"
        first, last = window.readings[0].start, window.readings[-1].end
        hours = (last - first) / timedelta(hours=1)
        return (
            f"ρ depends on the zone's past: ranked among {len(window)} readings of the last {format_number(hours, 3)} h"
        )
    smoothing = policy.smoothing
    calm = smoothing.deadband > 0 or smoothing.min_epochs > 1 or smoothing.max_change < 1
    return "It holds at a run's first epoch; later ones are smoothed" if calm else "It holds at every epoch"


def _without_intensity(policy: Policy, template: PolicyContext) -> str:
    try:
        return decide_rho(policy, replace(template, window=IntensitySeries())).reason
    except IntensityMissing as error:
        return f"{error}: the job fails"
