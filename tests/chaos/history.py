"""Invariants of every job, whatever faults the service had."""

from collections.abc import Iterable
from itertools import pairwise

from sqlalchemy import select

from store.database import Database
from store.lifecycle.status import ALLOWED_TRANSITIONS, FINAL, JobStatus
from store.tables import Artifact, EnergyInterval, Epoch, Event, Job, Step

WEIGHTS = "model.safetensors"


def check(database: Database, job_ids: Iterable[str], *, ends: JobStatus = JobStatus.SUCCEEDED) -> None:
    """Check that each job ended, by allowed and recorded transitions, and never ran twice at once."""
    for job_id in job_ids:
        with database.session() as session:
            job = session.get(Job, job_id)
            assert job is not None, f"{job_id} is lost"
            assert job.status is ends, (job_id, job.status, job.reason, job.error)
            assert job.lease_token is None
            events = session.scalars(select(Event).where(Event.job_id == job_id).order_by(Event.id)).all()
            intervals = session.scalars(select(EnergyInterval).where(EnergyInterval.job_id == job_id)).all()
            epochs = session.scalars(select(Epoch).where(Epoch.job_id == job_id).order_by(Epoch.number)).all()
        _check_transitions(job, events)
        _check_attempts(job, events, intervals)
        if ends is JobStatus.SUCCEEDED:
            assert [epoch.number for epoch in epochs] == list(range(1, job.epochs + 1))
            assert all(epoch.finished_at is not None for epoch in epochs)


def check_weights(database: Database, job_ids: Iterable[str], *, reference_job: str) -> None:
    """Check that each job's weights are the reference job's; the error lists the steps that differ and the events.

    The losses are compared step by step; that of a step is stored before its update.
    """
    expected, wanted = _weights(database, reference_job), _losses(database, reference_job)
    for job_id in job_ids:
        if _weights(database, job_id) == expected:
            continue
        losses = _losses(database, job_id)
        parted = [step for step, loss in wanted.items() if losses.get(step) != loss]
        with database.session() as session:
            events = session.scalars(select(Event).where(Event.job_id == job_id).order_by(Event.id)).all()
            story = [f"{event.at:%H:%M:%S.%f} {event.type} {event.data}" for event in events]
            selections = [
                session.scalars(select(Epoch.selection).where(Epoch.job_id == job).order_by(Epoch.number)).all()
                for job in (reference_job, job_id)
            ]
        other = [number for number, pair in enumerate(zip(*selections, strict=True), start=1) if pair[0] != pair[1]]
        raise AssertionError(
            f"{job_id} ends with other weights than {reference_job}: its losses differ at steps {parted[:5]} "
            f"({len(parted)} of {len(wanted)}), its selections in epochs {other}.\n" + "\n".join(story)
        )


def _weights(database: Database, job_id: str) -> str:
    """The SHA-256 of a finished job's weights."""
    with database.session() as session:
        artifact = session.get(Artifact, (job_id, WEIGHTS))
        assert artifact is not None
        return artifact.sha256


def _losses(database: Database, job_id: str) -> dict[int, float]:
    with database.session() as session:
        steps = session.scalars(select(Step).where(Step.job_id == job_id).order_by(Step.number))
        return {step.number: step.loss for step in steps}


def _check_transitions(job: Job, events: Iterable[Event]) -> None:
    """Check that the events contain every transition from submission to the job's status."""
    status = JobStatus.VALIDATING
    for event in events:
        if "to" not in event.data:
            continue
        came_from, went_to = JobStatus(event.data["from"]), JobStatus(event.data["to"])
        assert came_from is status, f"{job.id}: event {event.id} leaves {came_from}, but the job had status {status}"
        assert went_to in ALLOWED_TRANSITIONS[came_from]
        status = went_to
    assert status is job.status
    assert (job.finished_at is not None) == (status in FINAL)


def _check_attempts(job: Job, events: Iterable[Event], intervals: Iterable[EnergyInterval]) -> None:
    claimed = [event.data["attempt"] for event in events if event.type == "job.running"]
    assert claimed == list(range(1, job.attempts + 1)), f"{job.id}: {claimed}"
    spans: dict[int, tuple[float, float]] = {}
    for interval in intervals:
        begin, end = interval.started_at.timestamp(), interval.finished_at.timestamp()
        first, last = spans.get(interval.attempt, (begin, end))
        spans[interval.attempt] = (min(first, begin), max(last, end))
    ordered = [spans[attempt] for attempt in sorted(spans)]
    for (_, ended), (began, _) in pairwise(ordered):
        assert ended <= began, f"{job.id}: two attempts computed at the same time"
