"""Reclaims the jobs of workers that fell silent, and kills jobs that do not stop when they are asked to."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from kombu.exceptions import OperationalError as BrokerDown

from runtime.settings import Settings
from scheduler.broker import Broker
from store.accounting.host_shares import lock_hosts
from store.database import Database
from store.lifecycle.progress import return_lost_job
from store.lifecycle.queue import QueueRepository
from store.repositories.jobs import JobRepository

log = structlog.get_logger()

# On a busy machine a tick may take this long without a fault.
SLOW_TICK_SECONDS = 5.0
# A paused job is wanted later, so its checkpoint is worth waiting for; a cancelled one is not.
PAUSE_GRACE_FACTOR = 10


class OutageDetector:
    """Detects that the database was unreachable or this process was suspended, so that no worker could be heard.

    Reclaiming is suspended for a lease's time after it, in which each worker can renew its lease.
    """

    def __init__(self, lease_seconds: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lease_seconds, self._monotonic = lease_seconds, monotonic
        self._longest_gap = max(lease_seconds / 2, SLOW_TICK_SECONDS)
        self._last_contact: float | None = None
        self._suspended_until = float("-inf")

    def record_contact(self) -> bool:
        """Record that the database answers; False while reclaiming is suspended after a gap of half a lease."""
        now = self._monotonic()
        gap = 0.0 if self._last_contact is None else now - self._last_contact
        self._last_contact = now
        if gap > self._longest_gap:
            self._suspended_until = now + self._lease_seconds
            log.warning("scheduler.was_away", seconds=round(gap, 1), reclaims_in_s=self._lease_seconds)
        return now >= self._suspended_until


def reclaim_lost_jobs(database: Database, settings: Settings, *, at: datetime) -> None:
    """Move each job whose lease expired to the status that its worker would have set, or back to the queue."""
    with database.session() as session:
        lost = QueueRepository(session).lock_lost_jobs()
        lock_hosts(session, lost)
        for job in lost:
            worker = job.worker_id
            return_lost_job(
                session,
                job,
                at=at,
                reason=f"worker {worker} fell silent",
                lost="its worker fell silent",
                max_attempts=settings.max_attempts,
            )
            log.warning("job.reclaimed", job=job.id, worker=worker, lost_attempts=job.lost_attempts, now=job.status)


def kill_unresponsive_jobs(database: Database, broker: Broker, settings: Settings, *, at: datetime) -> None:
    """Kill the processes of jobs that were asked to stop and have not within the grace period.

    The grace period of a cancel is `cancel_grace_seconds` plus a lease's time, since the process kills itself first;
    that of a pause is ten times as long. The kill is repeated after each further period. The lease then expires, and
    the job is reclaimed.
    """
    grace = timedelta(seconds=settings.cancel_grace_seconds + settings.lease_seconds)
    tasks = []
    with database.session() as session:
        unresponsive = QueueRepository(session).lock_unresponsive_jobs(
            cancelled_before=at - grace, paused_before=at - PAUSE_GRACE_FACTOR * grace
        )
        for job in unresponsive:
            assert job.control_at is not None
            asked = f"asked to {job.control} {(at - job.control_at).total_seconds():.0f} s ago, and still running"
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
