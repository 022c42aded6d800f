"""Conditions of an unfinished job that change without it: its zone's intensity, and the queue ahead of it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from api.zones.endpoints import find_intensity
from api.zones.schemas import IntensityOut
from greencore.carbon import Basis
from planning.eta import QueueBacklog, load_queue_backlog
from runtime.settings import Settings
from store.intensity.readings import GridRepository, get_job_basis
from store.lifecycle.status import FINAL, JobStatus
from store.tables import Job


@dataclass(frozen=True)
class JobConditions:
    """Intensity in force in the job's zone, None where unknown; backlog ahead, None unless the job is queued."""

    intensity: IntensityOut | None
    queue: QueueBacklog | None


def conditions_tag(session: Session, settings: Settings, job: Job, *, now: datetime) -> list[object]:
    """Return ETag parts that change whenever `load_conditions` does; each query reads one row."""
    queue = _queue(session, job)
    parts: list[object] = [] if queue is None else [queue.running, queue.ahead]
    if job.zone is None or job.status in FINAL:
        return parts
    grid = GridRepository(session)
    basis = _basis(grid, settings, job)
    newest = grid.newest_reading(job.zone, basis, at=now)
    if newest is not None and now < newest.end:
        return [*parts, newest.start.isoformat(), newest.gco2e_per_kwh]
    # The value that replaces a missing reading changes with the hour.
    return [*parts, now.replace(minute=0, second=0, microsecond=0).isoformat()]


def load_conditions(session: Session, settings: Settings, job: Job, *, now: datetime) -> JobConditions:
    """Load the conditions; the intensity is None for a job that is over or has no zone yet."""
    intensity = None
    if job.zone is not None and job.status not in FINAL:
        grid = GridRepository(session)
        intensity = find_intensity(grid, settings, job.zone, _basis(grid, settings, job), now=now)
    return JobConditions(intensity, _queue(session, job))


def _queue(session: Session, job: Job) -> QueueBacklog | None:
    if job.status is not JobStatus.QUEUED:
        return None
    return load_queue_backlog(session, job.zone, priority=job.priority, job_id=job.id)


def _basis(grid: GridRepository, settings: Settings, job: Job) -> Basis:
    if job.signal is not None or job.zone is None:
        return get_job_basis(job)
    return grid.newest_basis(job.zone) or settings.basis(job.zone)
