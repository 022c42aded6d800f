"""Takes back the jobs of workers that have fallen silent, and kills what does not stop when it is asked to."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from kombu.exceptions import OperationalError as BrokerDown
from sqlalchemy.orm import Session

from runtime.settings import Settings
from scheduler.broker import Broker
from store.accounting.host_shares import lock_hosts
from store.database import Database
from store.lifecycle.queue import QueueRepository
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import Job

log = structlog.get_logger()

# A tick may take as long on a busy machine without anything being wrong.
SLOW_TICK_SECONDS = 5.0
# What a pause interrupts is worth waiting for; whoever cancels wants it no more.
PAUSE_GRACE_FACTOR = 10


class OutageDetector:
    """Whether this process has heard the database for long enough to tell a lost worker from one that was unheard.

    Where the database was away, or this process stood still, no worker can be blamed for its silence: for the length
    of a lease everybody may renew theirs first.
    """

    def __init__(self, lease_seconds: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lease_seconds, self._monotonic = lease_seconds, monotonic
        self._longest_gap = max(lease_seconds / 2, SLOW_TICK_SECONDS)
        self._last_contact: float | None = None
        self._suspended_until = float("-inf")

    def record_contact(self) -> bool:
        """Note that the database answers; False for a lease after it has not for half of one."""
        now = self._monotonic()
        gap = 0.0 if self._last_contact is None else now - self._last_contact
        self._last_contact = now
        if gap > self._longest_gap:
            self._suspended_until = now + self._lease_seconds
            log.warning("scheduler.was_away", seconds=round(gap, 1), reclaims_in_s=self._lease_seconds)
        return now >= self._suspended_until


def reclaim_lost_jobs(database: Database, settings: Settings, *, at: datetime) -> None:
    """Take every job whose lease has run out to where its worker would have, to go on from its last checkpoint."""
    with database.session() as session:
        lost = QueueRepository(session).lock_lost_jobs()
        lock_hosts(session, lost)
        for job in lost:
            worker = job.worker_id
            job.lost_attempts += 1
            _reclaim_job(session, job, settings, at=at)
            log.warning("job.reclaimed", job=job.id, worker=worker, lost_attempts=job.lost_attempts, now=job.status)


def kill_unresponsive_jobs(database: Database, broker: Broker, settings: Settings, *, at: datetime) -> None:
    """Have the process of a job killed that neither stopped nor ended itself within the grace period.

    The process itself is the first to end a job that is to be cancelled, so it has a lease's time more; the order is
    repeated each time that as much has passed again. The lease then runs out, and the job is taken back. One that is to
    pause has ten times as long.
    """
    grace = timedelta(seconds=settings.cancel_grace_seconds + settings.lease_seconds)
    tasks = []
    with database.session() as session:
        unresponsive = QueueRepository(session).lock_unresponsive_jobs(
            cancelled_before=at - grace, paused_before=at - PAUSE_GRACE_FACTOR * grace
        )
        for job in unresponsive:
            assert job.control_at is not None
            asked = f"asked to {job.control} {(at - job.control_at).total_seconds():.0f} s ago, and still there"
            JobRepository(session).record(job.id, "job.terminated", at=at, worker=job.worker_id, reason=asked)
            log.warning("job.terminated", job=job.id, worker=job.worker_id, task=job.task_id, reason=asked)
            job.control_at = at
            if job.task_id is not None:
                tasks.append(job.task_id)
    try:
        for task in tasks:
            broker.terminate(task)
    except BrokerDown as error:
        log.warning("broker.unreachable", tasks=len(tasks), error=str(error))


def _reclaim_job(session: Session, job: Job, settings: Settings, *, at: datetime) -> None:
    silent = f"worker {job.worker_id} fell silent"
    if job.status is JobStatus.CANCELLING:
        transition(session, job, JobStatus.CANCELLED, at=at, reason=silent, lost=job.lost_attempts)
    elif job.status is JobStatus.PAUSING:
        transition(session, job, JobStatus.PAUSED, at=at, reason=silent, lost=job.lost_attempts)
    elif job.lost_attempts >= settings.max_attempts:
        times = f"{job.lost_attempts} times" if job.lost_attempts > 1 else "once"
        detail = (
            f"its worker fell silent {times}, all that GREENTUNE_MAX_ATTEMPTS allows: it may need more memory than "
            "there is; a retry goes on from its last checkpoint"
        )
        JobRepository(session).fail(job, at=at, error={"title": "The workers of this job keep dying", "detail": detail})
    else:
        transition(session, job, JobStatus.QUEUED, at=at, reason=silent, lost=job.lost_attempts)
