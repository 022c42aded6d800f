"""Evaluates a job's gate: whether the job may compute now, and when to evaluate it again."""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from greencore.clock import HOUR
from greencore.policy.gate.evaluate import GateDecision, RunProgress, evaluate_gate
from planning.epoch_estimate import EpochEstimate
from runtime.settings import Settings
from store.intensity.readings import GridRepository, get_job_basis
from store.repositories.jobs import get_job_policy, share_left, whole_epochs
from store.tables import Job

# The interval at which forecasts are renewed; where readings are shorter, each new one is evaluated.
GATE_EVALUATION_INTERVAL = timedelta(minutes=15)


def is_gated(job: Job) -> bool:
    """Whether the job's policy has a gate that may close."""
    gate = job.policy.get("gate", {})
    return bool(gate.get("mode", "none") != "none" or gate.get("pause_above") is not None)


def evaluate_job_gate(
    session: Session,
    job: Job,
    estimate: EpochEstimate | None,
    settings: Settings,
    *,
    zone: str,
    computing: bool,
    at: datetime,
) -> GateDecision:
    """Evaluate a locked job's gate against its zone's intensity and forecast, and store the decision in `job.gate`.

    Sets `job.not_before` to the time of the next evaluation. Without an estimate the gate is open: there is no plan.
    """
    if estimate is None:
        return GateDecision(True, None, 0.0, False, False, False, "its duration is not known yet")
    policy = get_job_policy(job)
    before: dict[str, Any] = job.gate or {}
    _, rho_max = policy.rho_range
    progress = _progress(job, estimate, before, computing=computing)
    computing_hours = whole_epochs(job) * estimate.epoch_hours * rho_max + estimate.evaluation_hours
    longest_hours = computing_hours + policy.gate.max_delay_hours
    deadline = job.deadline or (job.released_at or job.ready_at or at) + longest_hours * HOUR
    # Where the plan uses all of its slack, the model must still be loaded before it trains, and evaluated as it does.
    latest_end = deadline - (estimate.startup_hours + estimate.evaluation_hours * share_left(job)) * HOUR
    known = GridRepository(session).load_snapshot(zone, get_job_basis(job), at, max(latest_end, at))
    in_force = known.resolve_intensity(at, stale_limit=settings.stale_limit, static=settings.static_mean(zone))
    forecast = known.forecast_from(at)
    decision = evaluate_gate(
        policy,
        progress,
        now=at,
        deadline=latest_end,
        forecast=forecast,
        intensity_gco2e_per_kwh=None if in_force is None else in_force.reading.gco2e_per_kwh,
    )
    current = forecast.at(at)
    next_evaluations = [at + GATE_EVALUATION_INTERVAL, *([current.end] if current is not None else [])]
    job.not_before = min([*next_evaluations, *([decision.until] if decision.until is not None else [])])
    job.gate = {
        **{name: value for name, value in asdict(decision).items() if name != "until"},
        "at": at.isoformat(),
        "until": None if decision.until is None else decision.until.isoformat(),
        "deadline": deadline.isoformat(),
        "pace": asdict(estimate),
    }
    return decision


def _progress(job: Job, estimate: EpochEstimate, before: dict[str, Any], *, computing: bool) -> RunProgress:
    of = whole_epochs(job)
    done = job.steps_done / job.steps * of if job.steps else float(job.epochs_done)
    within = min(max(done - job.epochs_done, 0.0), 1.0)
    left = min(1.0 - within, of - done)  # of the epoch, which `max_steps` may cut
    current = left * estimate.epoch_hours * job.rho if within > 0 and job.rho is not None else 0.0
    whole = of - job.epochs_done - (1 if current > 0 else 0)
    return RunProgress(
        epoch_left_hours=current,
        work_left_hours=max(whole, 0) * estimate.epoch_hours,
        rho=job.rho,
        begun=job.started_at is not None,
        computing=computing,
        switch_hours=estimate.startup_hours,
        committed=bool(before.get("committed", False)),
        shut=bool(before.get("shut", False)),
    )
