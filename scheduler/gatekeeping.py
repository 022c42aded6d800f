"""Opens and closes gates as time goes by: of jobs that are deferred, and of jobs that run."""

from datetime import datetime

import structlog

from scheduler.gates import look_at_gate
from scheduler.placing import Fleet, look_at_waiting
from store.database import Database
from store.grid import signal_named
from store.jobs import JobRepository
from store.pace import pace
from store.queue import QueueRepository
from store.settings import Settings
from store.status import JobStatus
from store.transitions import transition

log = structlog.get_logger()

# A tick must not be long; what is left over is due at the next.
LOOKS_PER_TICK = 50


def release_deferred_jobs(database: Database, fleet: Fleet, settings: Settings, *, at: datetime) -> None:
    """Queue every deferred job whose time has come and whose gate is open, or which no worker could run now."""
    with database.session() as session:
        for job in QueueRepository(session).deferred(due=at, limit=LOOKS_PER_TICK):
            found = look_at_waiting(session, job, fleet, settings, at=at)
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
            assert job.zone is not None
            expected = pace(session, job, settings, device=job.device)
            found = look_at_gate(
                session, job, expected, settings, zone=job.zone, signal=signal_named(job.signal), computing=True, at=at
            )
            if not found.opens:
                job.control, job.control_at = "defer", at
                JobRepository(session).record(job.id, "gate.closed", at=at, reason=found.reason, saving=found.saving)
                log.info("gate.closed", job=job.id, reason=found.reason)
