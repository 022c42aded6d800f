"""When a job is expected to be over: from its own speed while it runs, from the queue, the gate and an estimate before.

An estimate is an interval, and wider where it rests on what is assumed. It is kept in `job.eta`, and is written anew
only when it has moved: whoever polls a job is not told of every second.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import fmean, stdev

from sqlalchemy import Double, and_, func, or_, select
from sqlalchemy.orm import Session

from planning.epoch_estimate import ASSUMED_STARTUP_HOURS, EpochEstimate
from store.lifecycle.status import HELD_BY_A_WORKER, JobStatus
from store.repositories.jobs import get_job_policy
from store.tables import Event, Job, Json, Step

HOUR = timedelta(hours=1)
MAX_HOURS = 1e6
# Moves smaller than this are not worth telling; the share is of the time that is left.
MIN_CHANGE = timedelta(seconds=5)
MIN_CHANGE_SHARE = 0.03
MIN_STEPS = 2
MIN_WINDOW_STEPS = 32
MAX_WINDOW_STEPS = 512
# Steps follow one another in fast and slow stretches, which their own scatter does not show.
DRIFT = 0.08
# Until an epoch is over, nothing tells how long its end takes: the evaluation, and the checkpoint.
UNSEEN_END_OF_EPOCH = 0.25
# To evaluate and save in the end takes about as long as to load and evaluate took; it may take so many times as long.
ENDING_FACTORS = (0.2, 1.0, 2.0)


@dataclass(frozen=True)
class Eta:
    """When a job is expected to be over, at the earliest and at the latest in nine cases of ten; and why."""

    finishes_at: datetime
    earliest: datetime
    latest: datetime
    basis: str
    at: datetime

    def to_json(self) -> Json:
        """For `job.eta`."""
        times = {name: getattr(self, name).isoformat() for name in ("finishes_at", "earliest", "latest", "at")}
        return {**times, "basis": self.basis}

    @classmethod
    def from_json(cls, stored: Json) -> "Eta":
        """From `job.eta`."""
        times = {name: datetime.fromisoformat(stored[name]) for name in ("finishes_at", "earliest", "latest", "at")}
        return cls(**times, basis=stored["basis"])


@dataclass(frozen=True)
class QueueBacklog:
    """What a zone's workers have to do first: `flops` is the work left in jobs that run (`running`) or wait before."""

    running: int
    ahead: int
    flops: float

    def wait_hours(self, hours_per_flop: float, workers: int) -> float:
        """How long until one of `workers` is free; 0 where one is free now."""
        if self.running + self.ahead < max(workers, 1):
            return 0.0
        return self.flops * hours_per_flop / max(workers, 1)


def update_eta(job: Job, found: Eta | None) -> None:
    """Write what is now expected of a job, unless it is about what was expected before."""
    if found is None:
        return
    before = Eta.from_json(job.eta) if job.eta else None
    if before is None or _has_changed(before, found):
        job.eta = found.to_json()


def compute_running_eta(session: Session, job: Job, *, at: datetime) -> Eta | None:
    """By the speed of a running job's last steps; None until it has taken two in this attempt.

    The window is an epoch's steps, so that what lies between two epochs is in it. The rest is taken to have the present
    ρ, and at the ends of the interval what its policy may set at the most and the least.
    """
    started = session.scalar(select(func.max(Event.at)).where(Event.job_id == job.id, Event.type == "training.started"))
    if started is None or not job.steps:
        return None
    per_epoch = job.steps / job.epochs
    window = min(max(math.ceil(per_epoch) + 1, MIN_WINDOW_STEPS), MAX_WINDOW_STEPS)
    query = (
        select(Step.at)
        .where(Step.job_id == job.id, Step.number <= job.steps_done, Step.at >= started)
        .order_by(Step.number.desc())
        .limit(window)
    )
    times = list(reversed(session.scalars(query).all()))
    if len(times) <= MIN_STEPS:
        return None
    # A clock that was set back in between makes a step that took no time.
    lengths = [max((later - earlier).total_seconds(), 0.0) for earlier, later in pairwise(times)]
    left = max(job.steps - job.steps_done, 0)
    this_epoch = min(left, math.ceil(per_epoch * (job.epochs_done + 1)) - job.steps_done)
    later = left - max(this_epoch, 0)
    a_step, scatter = fmean(lengths), stdev(lengths)
    expected = left * a_step
    margin = 2 * scatter * math.sqrt(left + left**2 / len(lengths)) + DRIFT * expected
    slowest = expected + margin + (UNSEEN_END_OF_EPOCH * expected if len(times) <= per_epoch else 0.0)
    quickest = expected - margin
    basis = f"its last {len(lengths)} steps"
    low, high = get_job_policy(job).rho_range
    if job.rho and later and high > low:
        slowest += later * a_step * max(high / job.rho - 1, 0.0)
        quickest -= later * a_step * max(1 - low / job.rho, 0.0)
        basis += f", with ρ = {job.rho:.3g} from now on"
    shortest, usual, longest = (share * _ending_seconds(session, job) for share in ENDING_FACTORS)
    basis += "; the final evaluation as long as the first"
    latest = at + timedelta(seconds=slowest + longest)
    gate = job.gate or {}
    if job.policy.get("gate", {}).get("mode") == "pause":
        latest = max(latest, _time(gate.get("deadline")) or latest)
        basis += "; its gate may pause it"
    return Eta(
        finishes_at=at + timedelta(seconds=expected + usual),
        earliest=at + timedelta(seconds=max(quickest, 0.0) + shortest),
        latest=latest,
        basis=basis,
        at=at,
    )


def compute_waiting_eta(
    session: Session, job: Job, epoch_estimate: EpochEstimate | None, *, workers: int, at: datetime
) -> Eta | None:
    """Of a queued or deferred job: from its gate's plan, the queue before it, and its estimate; None without one."""
    if epoch_estimate is None or not job.estimate:
        return None
    gate = job.gate or {}
    opens = _time(gate.get("until")) if not gate.get("opens", True) else None
    queue = load_queue_backlog(session, job.zone, priority=job.priority, job_id=job.id)
    hours_per_flop = epoch_estimate.epoch_hours / (job.estimate["full_flops"] / job.epochs)
    wait = queue.wait_hours(hours_per_flop, workers)
    low, high = get_job_policy(job).rho_range
    done = job.steps_done / job.steps if job.steps else 0.0
    whole, outside = (
        job.epochs * epoch_estimate.epoch_hours * (1 - done),
        max(epoch_estimate.outside_hours, epoch_estimate.startup_hours),
    )
    start = max(at + _hours(wait), opens or at)
    basis = [f"{epoch_estimate.basis}"]
    if queue.running + queue.ahead:
        basis.append(f"{queue.running} jobs that run and {queue.ahead} that wait before it, on {workers} workers")
    if opens is not None:
        basis.append("the plan of its gate")
    latest = start + _hours(wait * (epoch_estimate.spread - 1) + (whole * high + outside) * epoch_estimate.spread)
    if opens is not None:
        latest = max(latest, _time(gate.get("deadline")) or latest)
    return Eta(
        finishes_at=start + _hours(whole * (low + high) / 2 + outside),
        earliest=at + _hours((wait + whole * low + outside) / epoch_estimate.spread),
        latest=latest,
        basis="; ".join(basis),
        at=at,
    )


def load_queue_backlog(session: Session, zone: str | None, *, priority: int, job_id: str | None = None) -> QueueBacklog:
    """What runs in a zone, and what waits there before a job of a priority; without an id, one that comes last.

    Jobs that are deferred are not in the way. What waits and has no zone yet may come to any.
    """
    waits = Job.status == JobStatus.QUEUED
    before = Job.priority >= priority
    if job_id is not None:
        before = or_(Job.priority > priority, and_(Job.priority == priority, Job.id < job_id))
    done = func.coalesce(Job.steps_done.cast(Double) / func.nullif(Job.steps, 0), 0.0)
    left = Job.estimate["full_flops"].astext.cast(Double) * (1.0 - done) * func.coalesce(Job.rho, 1.0)
    held = Job.status.in_(HELD_BY_A_WORKER)
    query = select(
        func.count().filter(held),
        func.count().filter(waits),
        func.coalesce(func.sum(left), 0.0),
    ).where(
        or_(
            and_(held, Job.zone == zone),
            and_(waits, before, or_(Job.zone == zone, Job.zone.is_(None))),
        )
    )
    running, ahead, flops = session.execute(query).one()
    return QueueBacklog(running, ahead, flops)


def _has_changed(before: Eta, found: Eta) -> bool:
    left = found.finishes_at - found.at
    least = max(MIN_CHANGE, left * MIN_CHANGE_SHARE)
    overdue = found.at > before.finishes_at and found.finishes_at > before.finishes_at + MIN_CHANGE
    bounds = [(before.earliest, found.earliest), (before.latest, found.latest)]
    return (
        overdue
        or abs(found.finishes_at - before.finishes_at) > least
        or any(abs(new - old) > 3 * least for old, new in bounds)
    )


def _ending_seconds(session: Session, job: Job) -> float:
    """How long the slowest start of an attempt took, from the claim to the first step: the first one evaluates."""
    query = (
        select(Event.type, Event.at)
        .where(Event.job_id == job.id, Event.type.in_(["job.running", "training.started"]))
        .order_by(Event.id)
    )
    starts = [
        (later.at - earlier.at).total_seconds()
        for earlier, later in pairwise(session.execute(query).all())
        if (earlier.type, later.type) == ("job.running", "training.started")
    ]
    return max(starts, default=ASSUMED_STARTUP_HOURS * 3600)


def _hours(hours: float) -> timedelta:
    """What is assumed of a slow device may come to more than a date can hold."""
    return min(hours, MAX_HOURS) * HOUR


def _time(stored: str | None) -> datetime | None:
    return None if stored is None else datetime.fromisoformat(stored)
