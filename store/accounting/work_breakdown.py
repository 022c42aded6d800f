"""Divides a job's metered energy into work that is in its result and work that was lost, with the delays between."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Literal, NamedTuple

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from greencore.carbon.accounting.pricing import TimeSpan
from greencore.carbon.accounting.run_parts import Delay, RunPart
from greencore.clock import HOUR
from store.lifecycle.status import FINAL, HELD_BY_A_WORKER, JobStatus
from store.tables import Epoch, Event, Job, Step

BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
TRAINING_STARTED, GATE_CLOSED = "training.started", "gate.closed"
TRANSITIONS = {f"job.{status}": status for status in JobStatus}
IN_OWNERS_HANDS = {JobStatus.PAUSED, *FINAL}
# A block is an attempt's consecutive intervals of one epoch, with gaps of at most a second.
BLOCKS = text("""
    WITH placed AS (
        SELECT *, cpu_kwh + gpu_kwh + ram_kwh AS kwh,
            epoch IS DISTINCT FROM lag(epoch) OVER following
            OR started_at > lag(finished_at) OVER following + interval '1 second' AS begins
        FROM energy_intervals WHERE job_id = :job_id
        WINDOW following AS (PARTITION BY attempt ORDER BY started_at, id)
    ), numbered AS (
        SELECT *, count(*) FILTER (WHERE begins) OVER following AS block FROM placed
        WINDOW following AS (PARTITION BY attempt ORDER BY started_at, id)
    )
    SELECT attempt, epoch, min(started_at), max(finished_at),
        sum(kwh), sum(kwh * pue), coalesce(sum(emissions_gco2e), 0)
    FROM numbered GROUP BY attempt, block, epoch ORDER BY min(started_at), min(id)
""")


# Why work is not in the result: the job's gate closed, or its attempt was lost.
_Cause = Literal["gate", "lost"]


@dataclass(frozen=True)
class EnergyAttribution:
    """Attribution of a job's energy: `parts`, in time order, are in its result.

    `lost_gco2e` are the emissions of work lost with its attempt, and of loading the model again; `gate_gco2e` the same
    where the job's gate had interrupted it. `flops_share` is the FLOPs of its epochs, probes included, divided by those
    of training every tensor; None where no epoch was finished.
    """

    parts: Sequence[RunPart]
    lost_gco2e: float
    gate_gco2e: float
    flops_share: float | None


@dataclass(frozen=True)
class _EnergyBlock:
    attempt: int
    epoch: int
    start: datetime
    end: datetime
    energy_kwh: float
    drawn_kwh: float
    emissions_gco2e: float

    def cut(self, at: datetime) -> "tuple[_EnergyBlock | None, _EnergyBlock | None]":
        """Split the block at a time into the parts before and after it; energy is divided by duration."""
        if at >= self.end:
            return self, None
        if at <= self.start:
            return None, self
        share = (at - self.start) / (self.end - self.start)
        return self._of(share, end=at), self._of(1 - share, start=at)

    def _of(self, share: float, *, start: datetime | None = None, end: datetime | None = None) -> "_EnergyBlock":
        return replace(
            self,
            start=start or self.start,
            end=end or self.end,
            energy_kwh=self.energy_kwh * share,
            drawn_kwh=self.drawn_kwh * share,
            emissions_gco2e=self.emissions_gco2e * share,
        )


class _Start(NamedTuple):
    """Start of training of an attempt, with the steps and epochs in its checkpoint."""

    attempt: int
    at: datetime
    steps_done: int
    epochs_done: int


def attribute_energy(session: Session, job: Job) -> EnergyAttribution:
    """Attribute the energy of all attempts of a job.

    Work of an attempt after the checkpoint from which a later one resumes is lost, as is loading the model again.
    """
    epochs = {epoch.number: epoch for epoch in session.scalars(select(Epoch).where(Epoch.job_id == job.id))}
    types = [*TRANSITIONS, TRAINING_STARTED, GATE_CLOSED]
    events = select(Event).where(Event.job_id == job.id, Event.type.in_(types)).order_by(Event.id)
    history = session.scalars(events).all()
    starts = _starts(history, job)
    resumed = select(Step.number, Step.at).where(
        Step.job_id == job.id, Step.number.in_({start.steps_done for start in starts})
    )
    records = _AttemptHistory(history, epochs, starts, steps=dict(iter(session.execute(resumed))))
    pieces: dict[_Cause | None, list[_EnergyBlock]] = {None: [], "gate": [], "lost": []}
    for row in session.execute(BLOCKS, {"job_id": job.id}):
        for piece, cause in records.divide(_EnergyBlock(*row)):
            pieces[cause].append(piece)
    return EnergyAttribution(
        parts=_parts(pieces, history, earliest_start=job.ready_at or job.created_at),
        lost_gco2e=sum(piece.emissions_gco2e for piece in pieces["lost"]),
        gate_gco2e=sum(piece.emissions_gco2e for piece in pieces["gate"]),
        flops_share=_flops_share(epochs.values()),
    )


@dataclass(frozen=True)
class _AttemptHistory:
    """Events, epochs and steps of a job's attempts, which decide what of their energy is in the result."""

    history: Sequence[Event]
    epochs: Mapping[int, Epoch]
    starts: Sequence[_Start]
    steps: Mapping[int, datetime]

    def divide(self, block: _EnergyBlock) -> Iterable[tuple[_EnergyBlock, _Cause | None]]:
        """Split a block into pieces, each with the cause of its loss, or None where it is in the result."""
        own = next((start for start in self.starts if start.attempt == block.attempt), None)
        later = [start for start in self.starts if start.attempt > block.attempt]
        if self._is_lost(block, own, later):
            yield block, self._cause(block.attempt)
            return
        again, rest = block.cut(BEFORE_ALL)
        if block.epoch == 0 and own is not None and own.steps_done > 0:
            again, rest = block.cut(own.at)
        if again is not None:
            yield again, self._cause(block.attempt - 1)
        if rest is not None:
            kept, lost = rest.cut(self._kept_until(later)) if later else (rest, None)
            if kept is not None:
                yield kept, None
            if lost is not None:
                yield lost, self._cause(block.attempt)

    def _is_lost(self, block: _EnergyBlock, own: _Start | None, later: Sequence[_Start]) -> bool:
        """Return whether no part of a block is in the result, regardless of checkpoints."""
        if block.epoch == 0:
            first_attempt = min((epoch.attempt for epoch in self.epochs.values()), default=1)
            return own is None and (bool(later) or block.attempt < first_attempt)
        epoch = self.epochs.get(block.epoch)
        if epoch is None or epoch.finished_at is None or block.end <= epoch.started_at:
            return True  # abandoned, or restarted from its first step
        return not later and block.attempt < epoch.attempt

    def _kept_until(self, later: Sequence[_Start]) -> datetime:
        """Return the end of the work that remains after the resumption of `later` that goes back furthest."""
        start = min(later, key=lambda start: start.steps_done)
        if start.steps_done == 0:
            return BEFORE_ALL
        epoch = self.epochs.get(start.epochs_done)
        times = [self.steps.get(start.steps_done), None if epoch is None else epoch.finished_at]
        return max((time for time in times if time is not None), default=BEFORE_ALL)

    def _cause(self, attempt: int) -> _Cause:
        """Return why an attempt ended: its gate closed, or it was lost."""
        gate_closed, runs = False, False
        for event in self.history:
            status = TRANSITIONS.get(event.type)
            if status is JobStatus.RUNNING:
                runs = event.data.get("attempt") == attempt
            elif runs and event.type == GATE_CLOSED:
                gate_closed = True
            elif runs and status is not None and status not in HELD_BY_A_WORKER:
                by_itself = status is JobStatus.QUEUED and "lost" not in event.data
                return "gate" if gate_closed and by_itself else "lost"
        return "lost"


def _starts(history: Sequence[Event], job: Job) -> list[_Start]:
    starts = [
        _Start(event.data["attempt"], event.at, event.data["steps_done"], event.data["epochs_done"])
        for event in history
        if event.type == TRAINING_STARTED
    ]
    claims = [event for event in history if TRANSITIONS.get(event.type) is JobStatus.RUNNING]
    if starts and claims and claims[-1].data.get("attempt", 0) > starts[-1].attempt:
        # The last attempt found training complete, and only evaluated and saved the model.
        starts.append(_Start(claims[-1].data["attempt"], claims[-1].at, job.steps_done, job.epochs_done))
    return starts


def _flops_share(epochs: Iterable[Epoch]) -> float | None:
    finished = [epoch for epoch in epochs if epoch.finished_at is not None]
    full = sum(epoch.full_flops or 0.0 for epoch in finished)
    spent = sum((epoch.flops or 0.0) + (epoch.probe_flops or 0.0) for epoch in finished)
    return spent / full if spent > 0 and full > 0 else None


def _parts(
    pieces: Mapping[_Cause | None, Sequence[_EnergyBlock]], history: Sequence[Event], *, earliest_start: datetime
) -> list[RunPart]:
    by_gate = [*_spans(history, {JobStatus.DEFERRED}), *((block.start, block.end) for block in pieces["gate"])]
    by_faults = [(block.start, block.end) for block in pieces["lost"]]
    owners = _spans(history, IN_OWNERS_HANDS)
    parts, time = list[RunPart](), earliest_start
    for block in sorted(pieces[None], key=lambda block: block.start):
        gap, left = (time, block.start), max(block.start - time, timedelta(0))
        shares = []
        for spans in (by_gate, owners, by_faults):
            taken = min(left, _overlap(gap, spans))
            shares.append(taken)
            left -= taken
        gate, owner, work_lost = shares
        parts.append(
            RunPart(
                hours=(block.end - block.start) / HOUR,
                energy_kwh=block.energy_kwh,
                emissions_gco2e=block.emissions_gco2e,
                in_epoch=block.epoch > 0,
                pue=max(1.0, block.drawn_kwh / block.energy_kwh) if block.energy_kwh > 0 else 1.0,
                delay=Delay(gate=gate, queue=left, owner=owner, lost=work_lost),
            )
        )
        time = max(time, block.end)
    return parts


def _spans(history: Sequence[Event], statuses: set[JobStatus]) -> list[TimeSpan]:
    """Return when the job had one of these statuses; a span without an end is left out."""
    moves = [(event.at, TRANSITIONS[event.type]) for event in history if event.type in TRANSITIONS]
    return [(at, until) for (at, status), (until, _) in pairwise(moves) if status in statuses]


def _overlap(gap: TimeSpan, spans: Iterable[TimeSpan]) -> timedelta:
    return sum((max(timedelta(0), min(gap[1], end) - max(gap[0], start)) for start, end in spans), timedelta(0))
