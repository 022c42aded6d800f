"""`POST /jobs/estimate`: what a job would take and emit, now and in the best window; nothing is queued."""

import math
from datetime import datetime, timedelta
from http import HTTPStatus

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api.access.principal import PrincipalDep
from api.context import ContextDep, NowDep, SessionDep
from api.jobs.budget import budget_out, work_of
from api.jobs.estimate_schemas import EstimateOut, Figure, PaceOut, PlaceOut, QueueOut, RunOut, SavingOut, WorkOut
from api.jobs.expected_place import Place, placed
from api.jobs.request import JobRequest
from api.jobs.submission import check
from api.problems import Problem, declared
from greencore.policy import Budget, Gate, Policy
from greencore.policy.ahead import MAX_PROJECTED_HOURS, ProjectedRun, project_run
from store.costs import Work, WorkUnknown
from store.eta import queue_before
from store.jobs import NewJob, policy_for
from store.pace import Pace
from store.settings import Settings

HOUR = timedelta(hours=1)
WAITING = {"mode": "defer", "min_saving": 0.0}

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.post(
    "/estimate",
    summary="What a job would take and emit",
    responses=declared(HTTPStatus.CONFLICT),
)
def estimate_job(
    request: JobRequest, principal: PrincipalDep, context: ContextDep, session: SessionDep, now: NowDep
) -> EstimateOut:
    """Checked as a submission is. 409 until a prepare worker has measured the model."""
    new = check(request, principal=principal, context=context, session=session, now=now)
    try:
        todo = work_of(session, new)
    except WorkUnknown as error:
        raise Problem(HTTPStatus.CONFLICT, f"{error}: try again in a moment") from error
    policy = policy_for(new.method, new.policy, share=todo.share)
    where, pace = placed(session, context.settings, new, policy, todo, at=now)
    return _estimate(session, context.settings, new, policy, todo, where, pace, now)


def _estimate(
    session: Session,
    settings: Settings,
    new: NewJob,
    policy: Policy,
    todo: Work,
    where: Place,
    pace: Pace,
    now: datetime,
) -> EstimateOut:
    queue = queue_before(session, where.zone, priority=new.priority)
    wait = queue.wait_hours(pace.epoch_hours / todo.epoch_flops, where.live_workers)
    start = now + min(wait, MAX_PROJECTED_HOURS) * HOUR
    straight = policy.model_copy(update={"gate": Gate()})
    gated = policy.gate.mode != "none"
    waiting = policy if gated else policy.model_copy(update={"gate": policy.gate.model_copy(update=WAITING)})
    runs = [_run(_course(one, new, pace, where, start), new, todo, pace, where) for one in (straight, waiting)]
    begun_now, best = runs
    saving = None
    if begun_now.emissions_gco2e is not None and best.emissions_gco2e is not None:
        saved = begun_now.emissions_gco2e.expected - best.emissions_gco2e.expected
        share = saved / begun_now.emissions_gco2e.expected if begun_now.emissions_gco2e.expected else 0.0
        saving = SavingOut(gco2e=saved, share=share)
    in_force = where.in_force
    return EstimateOut(
        now=begun_now,
        best=best,
        saving=saving,
        work=WorkOut(
            training_rows=todo.training_rows,
            tokens_per_epoch=todo.epoch_tokens,
            full_flops=Figure.of(todo.epoch_flops * new.epochs, todo.spread),
            basis=todo.basis,
        ),
        pace=PaceOut(
            device=where.device,
            epoch_hours=Figure.of(pace.epoch_hours, _together(pace.spread, todo.spread)),
            epoch_kwh=Figure.of(pace.epoch_kwh, _together(pace.spread, todo.spread)),
            outside_hours=pace.outside_hours,
            assumed=pace.assumed,
            basis=pace.basis,
        ),
        place=PlaceOut(
            zone=where.zone,
            reason=where.reason,
            live_workers=where.live_workers,
            signal=where.signal,
            gco2e_per_kwh=None if in_force is None else in_force.reading.gco2e_per_kwh,
            source=None if in_force is None else in_force.source,
            step=None if in_force is None else in_force.step,
            estimated=in_force is None or in_force.estimated,
            expected_until=where.outlook.readings[-1].end if where.forecast else None,
            sources=list(dict.fromkeys(reading.source for reading in where.outlook)),
            basis=where.basis,
        ),
        queue=QueueOut(running=queue.running, ahead=queue.ahead, starts_at=start),
        pue=where.pue,
        budget=budget_out(session, settings, new, policy, todo, pace, at=now),
        notes=_notes(new, policy, where, gated=gated),
    )


def _course(policy: Policy, new: NewJob, pace: Pace, where: Place, start: datetime) -> ProjectedRun:
    """The epochs alone: what is beside them is added, and has to fit before the deadline, too."""
    deadline = None if new.deadline is None else new.deadline - min(pace.outside_hours, MAX_PROJECTED_HOURS) * HOUR
    work_hours = max(pace.epoch_hours * new.epochs, 1e-6)
    return project_run(
        policy,
        where.outlook,
        past=where.past,
        start=start,
        work_hours=work_hours,
        epochs=new.epochs,
        power_w=max(pace.epoch_kwh / pace.epoch_hours * 1000 * where.pue, 1e-6) if pace.epoch_hours else 1e-6,
        deadline=None if deadline is None or deadline <= start else deadline,
    )


def _run(found: ProjectedRun, new: NewJob, todo: Work, pace: Pace, where: Place) -> RunOut:
    spread = _together(pace.spread, todo.spread)
    kwh = pace.epoch_kwh * new.epochs * found.work_share + pace.outside_kwh
    ends_at = found.ends_at + min(pace.outside_hours, MAX_PROJECTED_HOURS) * HOUR
    emissions = None
    if found.gco2e_per_kwh is not None:
        emissions = Figure.of(kwh * where.pue * found.gco2e_per_kwh, _together(spread, where.spread(ends_at)))
    return RunOut(
        starts_at=found.starts_at,
        ends_at=ends_at,
        hours=Figure.of(found.hours + pace.outside_hours, spread),
        rho=found.work_share,
        flops=Figure.of(todo.epoch_flops * new.epochs * found.work_share, todo.spread),
        energy_kwh=Figure.of(kwh, spread),
        gco2e_per_kwh=found.gco2e_per_kwh,
        emissions_gco2e=emissions,
        meets_deadline=None if new.deadline is None else ends_at <= new.deadline,
        why=found.why,
    )


def _together(*spreads: float) -> float:
    """The spread of a product of figures that err independently."""
    return math.exp(math.sqrt(sum(math.log(spread) ** 2 for spread in spreads)))


def _notes(new: NewJob, policy: Policy, where: Place, *, gated: bool) -> list[str]:
    notes = []
    if where.live_workers == 0:
        notes.append(f"no worker is alive in {where.zone}: until one is, the job waits")
    if not gated:
        notes.append("the policy has no gate, and would not wait for the best window: it shows what one would save")
    if isinstance(policy, Budget):
        notes.append("until an epoch's energy is measured on its device, a budget's epochs have rho_min")
    if new.method != "greentrainer":
        notes.append(f"{new.method} has no ρ to set: of the policy the gate alone counts")
    return notes
