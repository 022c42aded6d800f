"""Opens and closes gates as time goes by: of jobs that are deferred, and of jobs that run."""

from datetime import datetime
from functools import partial

import structlog
from sqlalchemy.orm import Session

from greencore.policy.gating import GateDecision
from scheduler.gates import LOOK_EVERY, look_at_gate
from scheduler.placing import NOT_LOOKED_AT, Fleet, guarded, look_at_waiting
from store.database import Database
from store.jobs import JobRepository
from store.pace import pace
from store.queue import QueueRepository
from store.settings import Settings
from store.status import JobStatus
from store.tables import Job
from store.transitions import transition

log = structlog.get_logger()

# A tick must not be long; what is left over is due at the next.
LOOKS_PER_TICK = 50


def release_deferred_jobs(database: Database, fleet: Fleet, settings: Settings, *, at: datetime) -> None:
    """Queue every deferred job whose time has come and whose gate is open, or which no worker could run now."""
    with database.session() as session:
        for job in QueueRepository(session).deferred(due=at, limit=LOOKS_PER_TICK):
            job.not_before = at + LOOK_EVERY
            found = guarded(session, job, partial(look_at_waiting, session, job, fleet, settings, at=at))
            if found is None and job.reason == NOT_LOOKED_AT:
                continue
            if found is None or found.opens:
                transition(session, job, JobStatus.QUEUED, at=at, reason=job.reason if found is None else found.reason)
            else:
                job.reason = found.reason


def pause_running_jobs(database: Database, settings: Settings, *, at: datetime) -> None:
    """Ask running jobs to stop at their next step where their gate closes; they go back to the queue, and wait there.

    Only a gate of the mode "pause" closes on a job that has begun.
    """
    with database.session() as session:
        for job in QueueRepository(session).running_to_look_at(due=at, limit=LOOKS_PER_TICK):
            job.not_before = at + LOOK_EVERY
            found = guarded(session, job, partial(_look_at_running, session, job, settings, at=at))
            if found is not None and not found.opens:
                job.control, job.control_at = "defer", at
                JobRepository(session).record(job.id, "gate.closed", at=at, reason=found.reason, saving=found.saving)
                log.info("gate.closed", job=job.id, reason=found.reason)


def _look_at_running(session: Session, job: Job, settings: Settings, *, at: datetime) -> GateDecision:
    assert job.zone is not None
    expected = pace(session, job, settings, device=job.device)
    return look_at_gate(session, job, expected, settings, zone=job.zone, computing=True, at=at)
