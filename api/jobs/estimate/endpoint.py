"""`POST /jobs/estimate`: predicts a job's time, energy and emissions, started now and in the best window."""

import math
from datetime import datetime
from http import HTTPStatus

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api.access.principal import PrincipalDep
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.problems import Problem, problem_responses
from api.jobs.budget_check import budget_out, estimate_job_workload
from api.jobs.estimate.placement import ExpectedPlacement, predict_placement
from api.jobs.estimate.schemas import EstimateOut, Figure, PaceOut, PlaceOut, QueueOut, RunOut, SavingOut, WorkOut
from api.jobs.request import JobRequest
from api.jobs.submission import validate_submission
from greencore.clock import HOUR
from greencore.policy import Budget, Gate, Policy
from greencore.policy.backtesting.projected_run import MAX_PROJECTED_HOURS, ProjectedRun, project_run
from planning.compute_costs import EpochWorkload, WorkloadUnknown
from planning.epoch_estimate import EpochEstimate
from planning.eta import load_queue_backlog
from runtime.settings import Settings
from store.repositories.jobs import NewJob, adapt_policy_to_method

DEFER_GATE = {"mode": "defer", "min_saving": 0.0}

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.post(
    "/estimate",
    summary="Estimate a job's time, energy and emissions",
    responses=problem_responses(HTTPStatus.CONFLICT),
)
def estimate_job(
    request: JobRequest, principal: PrincipalDep, context: AppContextDep, session: SessionDep, now: NowDep
) -> EstimateOut:
    """Validated like a submission, but nothing is queued. 409 until a prepare worker has measured the model."""
    new = validate_submission(request, principal=principal, context=context, session=session, now=now)
    try:
        epoch_workload = estimate_job_workload(session, new)
    except WorkloadUnknown as error:
        raise Problem(HTTPStatus.CONFLICT, f"{error}: try again in a moment") from error
    policy = adapt_policy_to_method(new.method, new.policy, share=epoch_workload.share)
    placement, epoch_estimate = predict_placement(session, context.settings, new, policy, epoch_workload, at=now)
    return _estimate(session, context.settings, new, policy, epoch_workload, placement, epoch_estimate, now)


def _estimate(
    session: Session,
    settings: Settings,
    new: NewJob,
    policy: Policy,
    epoch_workload: EpochWorkload,
    placement: ExpectedPlacement,
    epoch_estimate: EpochEstimate,
    now: datetime,
) -> EstimateOut:
    queue = load_queue_backlog(session, placement.zone, priority=new.priority)
    wait = queue.wait_hours(epoch_estimate.epoch_hours / epoch_workload.epoch_flops, placement.live_workers)
    start = now + min(wait, MAX_PROJECTED_HOURS) * HOUR
    ungated = policy.model_copy(update={"gate": Gate()})
    gated = policy.gate.mode != "none"
    deferred = policy if gated else policy.model_copy(update={"gate": policy.gate.model_copy(update=DEFER_GATE)})
    runs = [
        _run_out(
            _project_run(one, new, epoch_estimate, placement, start), new, epoch_workload, epoch_estimate, placement
        )
        for one in (ungated, deferred)
    ]
    started_now, best = runs
    saving = None
    if started_now.emissions_gco2e is not None and best.emissions_gco2e is not None:
        saved = started_now.emissions_gco2e.expected - best.emissions_gco2e.expected
        share = saved / started_now.emissions_gco2e.expected if started_now.emissions_gco2e.expected else 0.0
        saving = SavingOut(gco2e=saved, share=share)
    in_force = placement.in_force
    return EstimateOut(
        now=started_now,
        best=best,
        saving=saving,
        work=WorkOut(
            training_rows=epoch_workload.training_rows,
            tokens_per_epoch=epoch_workload.epoch_tokens,
            full_flops=Figure.of(epoch_workload.epoch_flops * new.epochs, epoch_workload.spread),
            basis=epoch_workload.basis,
        ),
        pace=PaceOut(
            device=placement.device,
            epoch_hours=Figure.of(
                epoch_estimate.epoch_hours, _combine_spreads(epoch_estimate.spread, epoch_workload.spread)
            ),
            epoch_kwh=Figure.of(
                epoch_estimate.epoch_kwh, _combine_spreads(epoch_estimate.spread, epoch_workload.spread)
            ),
            outside_hours=epoch_estimate.outside_hours,
            assumed=epoch_estimate.assumed,
            basis=epoch_estimate.basis,
        ),
        place=PlaceOut(
            zone=placement.zone,
            reason=placement.reason,
            live_workers=placement.live_workers,
            signal=placement.signal,
            gco2e_per_kwh=None if in_force is None else in_force.reading.gco2e_per_kwh,
            source=None if in_force is None else in_force.source,
            step=None if in_force is None else in_force.step,
            estimated=in_force is None or in_force.estimated,
            expected_until=placement.expected_intensity.readings[-1].end if placement.has_forecast else None,
            sources=list(dict.fromkeys(reading.source for reading in placement.expected_intensity)),
            basis=placement.basis,
        ),
        queue=QueueOut(running=queue.running, ahead=queue.ahead, starts_at=start),
        pue=placement.pue,
        budget=budget_out(session, settings, new, policy, epoch_workload, epoch_estimate, at=now),
        notes=_notes(new, policy, placement, gated=gated),
    )


def _project_run(
    policy: Policy, new: NewJob, epoch_estimate: EpochEstimate, placement: ExpectedPlacement, start: datetime
) -> ProjectedRun:
    """Simulate the epochs alone; the deadline leaves room for the time outside of them, which `_run_out` adds."""
    deadline = (
        None if new.deadline is None else new.deadline - min(epoch_estimate.outside_hours, MAX_PROJECTED_HOURS) * HOUR
    )
    work_hours = max(epoch_estimate.epoch_hours * new.epochs, 1e-6)
    return project_run(
        policy,
        placement.expected_intensity,
        past=placement.past,
        start=start,
        work_hours=work_hours,
        epochs=new.epochs,
        power_w=max(epoch_estimate.epoch_kwh / epoch_estimate.epoch_hours * 1000 * placement.pue, 1e-6)
        if epoch_estimate.epoch_hours
        else 1e-6,
        deadline=None if deadline is None or deadline <= start else deadline,
    )


def _run_out(
    found: ProjectedRun,
    new: NewJob,
    epoch_workload: EpochWorkload,
    epoch_estimate: EpochEstimate,
    placement: ExpectedPlacement,
) -> RunOut:
    spread = _combine_spreads(epoch_estimate.spread, epoch_workload.spread)
    kwh = epoch_estimate.epoch_kwh * new.epochs * found.work_share + epoch_estimate.outside_kwh
    ends_at = found.ends_at + min(epoch_estimate.outside_hours, MAX_PROJECTED_HOURS) * HOUR
    emissions = None
    if found.gco2e_per_kwh is not None:
        emissions = Figure.of(
            kwh * placement.pue * found.gco2e_per_kwh, _combine_spreads(spread, placement.spread(ends_at))
        )
    return RunOut(
        starts_at=found.starts_at,
        ends_at=ends_at,
        hours=Figure.of(found.hours + epoch_estimate.outside_hours, spread),
        rho=found.work_share,
        flops=Figure.of(epoch_workload.epoch_flops * new.epochs * found.work_share, epoch_workload.spread),
        energy_kwh=Figure.of(kwh, spread),
        gco2e_per_kwh=found.gco2e_per_kwh,
        emissions_gco2e=emissions,
        meets_deadline=None if new.deadline is None else ends_at <= new.deadline,
        why=found.why,
    )


def _combine_spreads(*spreads: float) -> float:
    """Return the spread of a product of figures with independent errors."""
    return math.exp(math.sqrt(sum(math.log(spread) ** 2 for spread in spreads)))


def _notes(new: NewJob, policy: Policy, placement: ExpectedPlacement, *, gated: bool) -> list[str]:
    notes = []
    if placement.live_workers == 0:
        notes.append(f"no worker is alive in {placement.zone}: until one is, the job waits")
    if not gated:
        notes.append("the policy has no gate and starts at once: the best window shows what a gate would save")
    if isinstance(policy, Budget):
        notes.append("until an epoch's energy is measured on its device, a budget's epochs have rho_min")
    if new.method != "greentrainer":
        notes.append(f"{new.method} has no ρ: only the policy's gate applies")
    return notes
