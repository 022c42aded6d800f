"""What has to be true of every job, whatever was done to the service meanwhile."""

from collections.abc import Iterable
from itertools import pairwise

from sqlalchemy import select

from store.database import Database
from store.status import ALLOWED, FINAL, JobStatus
from store.tables import Artifact, EnergyInterval, Epoch, Event, Job

WEIGHTS = "model.safetensors"


def check(database: Database, job_ids: Iterable[str], *, ends: JobStatus = JobStatus.SUCCEEDED) -> None:
    """Each job is there and over, went only allowed ways, each of them on record, and never ran twice at once."""
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


def weights(database: Database, job_id: str) -> str:
    """The SHA-256 of a finished job's weights."""
    with database.session() as session:
        artifact = session.get(Artifact, (job_id, WEIGHTS))
        assert artifact is not None
        return artifact.sha256


def _check_transitions(job: Job, events: Iterable[Event]) -> None:
    """The events alone tell the whole way from submission to where the job stands."""
    stands = JobStatus.VALIDATING
    for event in events:
        if "to" not in event.data:
            continue
        came_from, went_to = JobStatus(event.data["from"]), JobStatus(event.data["to"])
        assert came_from is stands, f"{job.id}: event {event.id} leaves {came_from}, but the job stood at {stands}"
        assert went_to in ALLOWED[came_from]
        stands = went_to
    assert stands is job.status
    assert (job.finished_at is not None) == (stands in FINAL)


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
