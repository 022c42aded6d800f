"""`/dashboard/policies/curve`: ρ over the intensity, computed by the code that decides it for a job."""

import math
from dataclasses import replace
from datetime import datetime, timedelta

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.access.principal import PrincipalDep
from api.dependencies import AppContext, AppContextDep, NowDep, SessionDep
from api.figures import format_number
from api.policies.schemas import resolve_policy
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
from greencore.policy.kinds.by_intensity import IntensityPolicy
from store.intensity.readings import GridRepository

SHOWN_GCO2E_PER_KWH = 700.0
MAX_SHOWN_GCO2E_PER_KWH = 5000.0
MARGIN = 1.15  # length of the axis over the policy's highest bound
POINTS = 701
# Fewer for policies that rank all readings, or plan the whole run, at each point.
POINTS_OF_RANKS_AND_PLANS = 71
MAX_RANKED_READINGS = 2_000

router = APIRouter()


class PointNow(BaseModel):
    """Decision for an epoch that would start now."""

    gco2e_per_kwh: float
    rho: float | None
    reason: str


class CurveOut(BaseModel):
    """ρ at each intensity; null where the run would end instead of starting an epoch."""

    gco2e_per_kwh: list[float]
    rho: list[float | None]
    basis: str = Field(description="What the curve is based on; why there is none where the lists are empty")
    without_intensity: str = Field(description="Decision while no intensity is known")
    pause_above: float | None
    resume_below: float | None
    now: PointNow | None


@router.post("/dashboard/policies/curve")
def policy_curve(
    request: SimulationRequest, principal: PrincipalDep, context: AppContextDep, session: SessionDep, now: NowDep
) -> CurveOut:
    """Return the policy's curve; takes a simulation's body, and reports a policy's errors as a simulation does."""
    policy = resolve_policy(request.policy, session)
    known = None if request.zone is None else _resolve_intensity(request.zone, context, session, now)
    window = _percentile_window(policy, request.zone, session, now)
    template = PolicyContext(
        now=now,
        reading=None,
        window=window,
        epochs_left=request.epochs,
        epoch_hours=request.work_hours / request.epochs,
        epoch_kwh=request.work_hours / request.epochs * request.power_w / 1000,
    )
    drawn = not isinstance(policy, Percentile) or len(window) > 0  # there is no rank among no readings
    points = _points(policy) if drawn else []
    drawn_reading = Reading(
        zone="any", start=now, end=now + timedelta(hours=1), gco2e_per_kwh=0.0, source="curve", fetched_at=now
    )
    readings = [replace(drawn_reading, gco2e_per_kwh=intensity) for intensity in points]
    current = None
    if drawn and known is not None:
        context_now = replace(template, reading=known.to_labelled_reading(), step=known.step)
        rho, reason = _decide(policy, context_now)
        current = PointNow(gco2e_per_kwh=known.reading.gco2e_per_kwh, rho=rho, reason=reason)
    return CurveOut(
        gco2e_per_kwh=points,
        rho=[_decide(policy, replace(template, reading=reading))[0] for reading in readings],
        basis=_describe_basis(policy, template),
        without_intensity=_describe_without_intensity(policy, template),
        pause_above=policy.gate.pause_above,
        resume_below=policy.gate.resume_below,
        now=current,
    )


def _resolve_intensity(zone: str, context: AppContext, session: Session, now: datetime) -> ResolvedIntensity | None:
    grid, settings = GridRepository(session), context.settings
    return grid.resolve_intensity(zone, grid.newest_basis(zone) or settings.basis(zone), now, settings)


def _percentile_window(policy: Policy, zone: str | None, session: Session, now: datetime) -> IntensitySeries:
    """Return the readings that `percentile` ranks among; the newest of more than can be ranked at each point."""
    grid = GridRepository(session)
    basis = None if zone is None else grid.newest_basis(zone)
    if not isinstance(policy, Percentile) or zone is None or basis is None:
        return IntensitySeries()
    stored = grid.readings_between(zone, basis, now - timedelta(hours=policy.window_hours), now)
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


def _decide(policy: Policy, context: PolicyContext) -> tuple[float | None, str]:
    """Return ρ, None if the run would end, and the reason."""
    decision = decide_rho(policy, context)
    return None if decision.ends_run else decision.rho, decision.reason


def _describe_basis(policy: Policy, template: PolicyContext) -> str:
    epoch = f"{format_number(template.epoch_kwh)} kWh an epoch at ρ = 1"
    window = template.window
    if isinstance(policy, Budget):
        return (
            "ρ depends on the run's emissions so far and on the forecast. Drawn is the first of "
            f"{template.epochs_left} epochs, at {epoch}, with the grid at this intensity for the whole run; "
            "there is no line where the budget does not suffice for it"
        )
    if isinstance(policy, Price):
        return (
            "ρ depends on how much an epoch reduces the loss. Drawn is the first epoch, at "
            f"{epoch}, with the reduction per epoch that is assumed until one is measured"
        )
    if isinstance(policy, Percentile):
        if not len(window):
            return "ρ depends on the zone's stored readings, of which there are none: no curve can be drawn"
        first, last = window.readings[0].start, window.readings[-1].end
        hours = (last - first) / timedelta(hours=1)
        return f"ρ depends on the rank among {len(window)} readings of the last {format_number(hours, 3)} h"
    smoothing = policy.smoothing
    smoothed = smoothing.deadband > 0 or smoothing.min_epochs > 1 or smoothing.max_change < 1
    return "Applies to a run's first epoch; later ones are smoothed" if smoothed else "Applies to every epoch"


def _describe_without_intensity(policy: Policy, template: PolicyContext) -> str:
    try:
        return decide_rho(policy, replace(template, window=IntensitySeries())).reason
    except IntensityMissing as error:
        return f"{error}: the job fails"
