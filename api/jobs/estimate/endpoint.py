"""`POST /jobs/estimate`: predicts a job's time, energy and emissions, started now and in the best window."""

import math
from datetime import datetime, timedelta
from http import HTTPStatus

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api.access.principal import PrincipalDep
from api.dependencies import AppContext, AppContextDep, NowDep, SessionDep
from api.http.problems import Problem, problem_responses
from api.jobs.budget_check import budget_out, estimate_job_workload
from api.jobs.estimate.method import choose_submitted_method
from api.jobs.estimate.placement import ExpectedPlacement, predict_placement
from api.jobs.estimate.schemas import (
    EstimateOut,
    Figure,
    MemoryOut,
    PaceOut,
    PlaceOut,
    QueueOut,
    RunOut,
    SavingOut,
    WorkOut,
)
from api.jobs.request import JobRequest
from api.jobs.submission import validate_submission
from greencore.clock import HOUR
from greencore.policy import Budget, Gate, Policy
from greencore.policy.backtesting.projected_run import MAX_PROJECTED_HOURS, ProjectedRun, project_run
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.method_choice import AUTO
from greencore.settings.recipe_text import describe_recipe
from planning.compute_costs import EpochWorkload, WorkloadUnknown
from planning.epoch_estimate import EpochEstimate
from planning.eta import load_queue_backlog
from planning.live_devices import list_live_devices, select_with_gpus
from planning.peak_memory import JobSettings, predict_memory
from store.repositories.jobs import NewJob, adapt_policy_to_method
from store.tables import Dataset

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
    choice = None
    try:
        if new.method == AUTO:
            new, choice = choose_submitted_method(session, context.settings, new, at=now)
        workload = estimate_job_workload(session, new)
    except WorkloadUnknown as error:
        raise Problem(HTTPStatus.CONFLICT, f"{error}: try again in a moment") from error
    policy = adapt_policy_to_method(new.method, new.policy, share=workload.share)
    placement, epoch = predict_placement(session, context.settings, new, policy, workload, at=now)
    queue = load_queue_backlog(session, placement.zone, priority=new.priority)
    hours_per_flop = new.gpus * epoch.epoch_hours / workload.epoch_flops
    wait = queue.wait_hours(hours_per_flop, of_gpus=placement.gpus, wanted=new.gpus)
    start = now + min(wait, MAX_PROJECTED_HOURS) * HOUR
    gated = policy.gate.mode != "none"
    ungated = policy.model_copy(update={"gate": Gate()})
    deferred = policy if gated else policy.model_copy(update={"gate": policy.gate.model_copy(update=DEFER_GATE)})
    started_now, best = (
        _run_out(_project_run(one, new, workload, epoch, placement, start), new, workload, epoch, placement)
        for one in (ungated, deferred)
    )
    memory = _memory_out(session, context, new, policy)
    pace_spread = _combine_spreads(epoch.spread, workload.spread)
    in_force = placement.in_force
    notes = _notes(
        new, policy, placement, memory, gated=gated, chosen=choice is not None, dropped_rows=workload.dropped_rows
    )
    return EstimateOut(
        method=new.method,
        method_reason=choice and choice.reason,
        now=started_now,
        best=best,
        saving=_saving(started_now.emissions_gco2e, best.emissions_gco2e),
        work=WorkOut(
            training_rows=workload.training_rows,
            training_examples=workload.training_examples,
            dropped_rows=workload.dropped_rows,
            tokens_per_epoch=workload.epoch_tokens,
            full_flops=Figure.of(workload.epoch_flops * workload.length.whole_epochs, workload.spread),
            steps=workload.length.steps,
            recipe=describe_recipe(Hyperparameters.model_validate(new.hyperparameters)),
            basis=workload.basis,
        ),
        pace=PaceOut.from_row(
            epoch,
            device=placement.device,
            epoch_hours=Figure.of(epoch.epoch_hours, pace_spread),
            epoch_kwh=Figure.of(epoch.epoch_kwh, pace_spread),
        ),
        memory=memory,
        place=PlaceOut.from_row(
            placement,
            gco2e_per_kwh=in_force and in_force.reading.gco2e_per_kwh,
            source=in_force and in_force.source,
            step=in_force and in_force.step,
            estimated=in_force is None or in_force.estimated,
            expected_until=placement.expected_intensity.readings[-1].end if placement.has_forecast else None,
            sources=list(dict.fromkeys(reading.source for reading in placement.expected_intensity)),
        ),
        queue=QueueOut(running=queue.running, ahead=queue.ahead, starts_at=start),
        pue=placement.pue,
        budget=budget_out(session, context.settings, new, policy, workload, epoch, at=now),
        notes=[*([f"{new.method} is chosen: {choice.reason}"] if choice else []), *notes],
    )


def _memory_out(session: Session, context: AppContext, new: NewJob, policy: Policy) -> MemoryOut:
    hyperparameters = Hyperparameters.model_validate(new.hyperparameters)
    wanted = JobSettings.of(new.model, new.method, policy, hyperparameters, new.gpus)
    within = timedelta(seconds=context.settings.lease_seconds)
    devices = list_live_devices(session, zone=new.zone, within=within, attention=hyperparameters.attention)
    devices = select_with_gpus(devices, new.gpus)
    return MemoryOut.from_row(predict_memory(session, devices, session.get_one(Dataset, new.dataset_id), wanted))


def _project_run(
    policy: Policy,
    new: NewJob,
    workload: EpochWorkload,
    epoch: EpochEstimate,
    placement: ExpectedPlacement,
    start: datetime,
) -> ProjectedRun:
    """Simulate the epochs alone; the deadline leaves room for the time outside of them, which `_run_out` adds."""
    deadline = None if new.deadline is None else new.deadline - _outside(epoch)
    power_w = epoch.epoch_kwh / epoch.epoch_hours * 1000 * placement.pue if epoch.epoch_hours else 0.0
    return project_run(
        policy,
        placement.expected_intensity,
        past=placement.past,
        start=start,
        work_hours=max(epoch.epoch_hours * workload.length.whole_epochs, 1e-6),
        epochs=workload.length.epochs,
        power_w=max(power_w, 1e-6),
        deadline=None if deadline is None or deadline <= start else deadline,
    )


def _run_out(
    found: ProjectedRun, new: NewJob, workload: EpochWorkload, epoch: EpochEstimate, placement: ExpectedPlacement
) -> RunOut:
    spread = _combine_spreads(epoch.spread, workload.spread)
    kwh = epoch.epoch_kwh * workload.length.whole_epochs * found.work_share + epoch.outside_kwh
    ends_at = found.ends_at + _outside(epoch)
    emissions = None
    if found.gco2e_per_kwh is not None:
        gco2e = kwh * placement.pue * found.gco2e_per_kwh
        emissions = Figure.of(gco2e, _combine_spreads(spread, placement.spread(ends_at)))
    return RunOut.from_row(
        found,
        ends_at=ends_at,
        hours=Figure.of(found.hours + epoch.outside_hours, spread),
        rho=found.work_share,
        flops=Figure.of(workload.epoch_flops * workload.length.whole_epochs * found.work_share, workload.spread),
        energy_kwh=Figure.of(kwh, spread),
        emissions_gco2e=emissions,
        meets_deadline=None if new.deadline is None else ends_at <= new.deadline,
    )


def _outside(epoch: EpochEstimate) -> timedelta:
    return min(epoch.outside_hours, MAX_PROJECTED_HOURS) * HOUR


def _saving(now: Figure | None, best: Figure | None) -> SavingOut | None:
    if now is None or best is None:
        return None
    saved = now.expected - best.expected
    return SavingOut(gco2e=saved, share=saved / now.expected if now.expected else 0.0)


def _combine_spreads(*spreads: float) -> float:
    """Return the spread of a product of figures with independent errors."""
    return math.exp(math.sqrt(sum(math.log(spread) ** 2 for spread in spreads)))


def _notes(
    new: NewJob,
    policy: Policy,
    placement: ExpectedPlacement,
    memory: MemoryOut,
    *,
    gated: bool,
    chosen: bool,
    dropped_rows: int | None,
) -> list[str]:
    notes = []
    if memory.peak_bytes is not None and memory.device_bytes is not None and memory.peak_bytes > memory.device_bytes:
        may = new.hyperparameters["gradient_checkpointing"] == "auto" and new.method != "prefix"
        unless = ", unless recomputed blocks make it fit" if may else ""
        then = "chooses another method" if chosen and new.method != "greentrainer" else "refuses it"
        notes.append(f"its steps are predicted not to fit any live device: its preparation {then} then{unless}")
    if dropped_rows:
        notes.append(f"nothing is learned of {dropped_rows} of the dataset's rows: they are left out")
    if placement.live_workers == 0:
        which = "no worker" if new.gpus == 1 else f"no worker with {new.gpus} GPUs"
        notes.append(f"{which} is alive in {placement.zone}: until one is, the job waits")
    if new.gpus_asked is None:
        notes.append("how many GPUs hold it is found as it is prepared: until then these are the figures of one")
    if not gated:
        notes.append("the policy has no gate and starts at once: the best window shows what a gate would save")
    if isinstance(policy, Budget):
        notes.append("until an epoch's energy is measured on its device, a budget's epochs have rho_min")
    if new.method != "greentrainer":
        only = "the policy's mean ρ has set its length, and only the gate applies beside"
        notes.append(f"{new.method} has no ρ: {only if chosen else 'only the gate of its policy applies'}")
    return notes
