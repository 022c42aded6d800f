"""Computes the ETA of a job: from its own speed while it runs; before, from the queue, its gate and an estimate.

The ETA is an interval, wider where it is based on assumptions. It is stored in `job.eta`, and only written when it has
moved, so that a client that polls the job does not see a change every second.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import fmean, stdev

from sqlalchemy import Double, and_, func, or_, select
from sqlalchemy.orm import Session

from greencore.clock import HOUR
from planning.epoch_estimate import ASSUMED_STARTUP_HOURS, EpochEstimate, list_startup_hours
from store.lifecycle.status import HELD_BY_A_WORKER, JobStatus
from store.repositories.jobs import get_job_policy, whole_epochs
from store.tables import Event, Job, Json, Step

MAX_HOURS = 1e6
# Smaller changes are not written; the share is of the remaining time.
MIN_CHANGE = timedelta(seconds=5)
MIN_CHANGE_SHARE = 0.03
MIN_STEPS = 2
MIN_WINDOW_STEPS = 32
MAX_WINDOW_STEPS = 512
# Consecutive steps have fast and slow stretches, which the scatter of single steps does not show.
DRIFT = 0.08
# Before the first epoch ends, the time of its evaluation and checkpoint is unknown.
UNSEEN_END_OF_EPOCH = 0.25
# The final evaluation and saving takes about as long as loading and the first evaluation, within these factors.
ENDING_FACTORS = (0.2, 1.0, 2.0)


@dataclass(frozen=True)
class Eta:
    """Predicted end of a job, the earliest and latest end in nine cases of ten, its basis, and when it was computed."""

    finishes_at: datetime
    earliest: datetime
    latest: datetime
    basis: str
    at: datetime

    def to_json(self) -> Json:
        """Return the value of `job.eta`."""
        times = {name: getattr(self, name).isoformat() for name in ("finishes_at", "earliest", "latest", "at")}
        return {**times, "basis": self.basis}

    @classmethod
    def from_json(cls, stored: Json) -> "Eta":
        """Parse `job.eta`."""
        times = {name: datetime.fromisoformat(stored[name]) for name in ("finishes_at", "earliest", "latest", "at")}
        return cls(**times, basis=stored["basis"])


@dataclass(frozen=True)
class QueueBacklog:
    """Jobs that a zone's workers run (`running`) or have queued (`ahead`) before a job.

    `flops` are those that remain of them, `gpus` the devices that they take.
    """

    running: int
    ahead: int
    flops: float
    gpus: int

    def wait_hours(self, hours_per_flop: float, *, of_gpus: int, wanted: int = 1) -> float:
        """Hours until `wanted` of the zone's devices are free, by a device's hours for a FLOP; 0 where they are now."""
        there = max(of_gpus, wanted)
        return 0.0 if self.gpus + wanted <= there else self.flops * hours_per_flop / there


def update_eta(job: Job, found: Eta | None) -> None:
    """Store a job's ETA, unless it has hardly changed."""
    if found is None:
        return
    before = Eta.from_json(job.eta) if job.eta else None
    if before is None or _has_changed(before, found):
        job.eta = found.to_json()


def compute_running_eta(session: Session, job: Job, *, at: datetime) -> Eta | None:
    """Compute the ETA of a running job by the speed of its last steps; None until this attempt has taken two.

    The window is an epoch's steps, so that it includes the time between two epochs. The remaining steps are assumed to
    have the present ρ, and at the ends of the interval the policy's highest and lowest one.
    """
    started = session.scalar(select(func.max(Event.at)).where(Event.job_id == job.id, Event.type == "training.started"))
    if started is None or not job.steps:
        return None
    per_epoch = job.steps / whole_epochs(job)
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
    # A step during which the clock was set back counts as 0.
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
    if job.hyperparameters.get("early_stopping"):
        quickest = 0.0
        basis += "; it may stop early, at any evaluation"
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
    session: Session, job: Job, epoch_estimate: EpochEstimate | None, *, gpus: int, at: datetime
) -> Eta | None:
    """Compute the ETA of a queued or deferred job from its gate's plan, the queue and its estimate, if it has one.

    The workers of its zone have `gpus` devices.
    """
    if epoch_estimate is None or not job.estimate:
        return None
    gate = job.gate or {}
    opens = _time(gate.get("until")) if not gate.get("opens", True) else None
    queue = load_queue_backlog(session, job.zone, priority=job.priority, job_id=job.id)
    hours_per_flop = epoch_estimate.epoch_hours / (job.estimate["full_flops"] / whole_epochs(job))
    wait = queue.wait_hours(hours_per_flop * job.gpus, of_gpus=gpus, wanted=job.gpus)
    low, high = get_job_policy(job).rho_range
    done = job.steps_done / job.steps if job.steps else 0.0
    whole = whole_epochs(job) * epoch_estimate.epoch_hours * (1 - done)
    outside = max(epoch_estimate.outside_hours - epoch_estimate.evaluation_hours * done, epoch_estimate.startup_hours)
    start = max(at + _hours(wait), opens or at)
    basis = [epoch_estimate.basis]
    if queue.running + queue.ahead:
        before = f"{queue.running} running and {queue.ahead} queued jobs before it"
        basis.append(f"{before}, on {gpus} device{'s' if gpus != 1 else ''}")
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
    """Load the running jobs of a zone, and those queued before a job of a priority; without an id, before a new job.

    Deferred jobs do not count. Queued jobs without a zone count in every zone.
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
        func.coalesce(func.sum(Job.gpus), 0),
    ).where(
        or_(
            and_(held, Job.zone == zone),
            and_(waits, before, or_(Job.zone == zone, Job.zone.is_(None))),
        )
    )
    return QueueBacklog(*session.execute(query).one())


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
    """Duration of the slowest start of an attempt, since the first one includes an evaluation."""
    return max(list_startup_hours(session, job), default=ASSUMED_STARTUP_HOURS) * 3600


def _hours(hours: float) -> timedelta:
    """Convert hours, limited so that the estimate for a slow device does not overflow a date."""
    return min(hours, MAX_HOURS) * HOUR


def _time(stored: str | None) -> datetime | None:
    return None if stored is None else datetime.fromisoformat(stored)
