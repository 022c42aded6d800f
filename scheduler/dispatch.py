"""Sends jobs to workers: new ones to be prepared, queued ones to be trained in their zone."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog
from celery import Celery
from kombu.exceptions import OperationalError as BrokerDown
from sqlalchemy.orm import Session

from store.database import Database
from store.grid import GridRepository
from store.jobs import JobRepository
from store.settings import Settings
from store.status import JobStatus
from store.tables import Job, Worker
from worker.app import PREPARE, PREPARE_QUEUE, TRAIN, send, train_queue

log = structlog.get_logger()


def dispatch_new_jobs(database: Database, celery: Celery, settings: Settings, *, at: datetime) -> None:
    """Send every job that waits for validation to a prepare worker."""

    def to_prepare(session: Session, job: Job) -> bool:
        send(celery, PREPARE, job.id, queue=PREPARE_QUEUE)
        return True

    _dispatch(database, settings, JobStatus.VALIDATING, to_prepare, at=at)


def dispatch_queued_jobs(database: Database, celery: Celery, settings: Settings, *, at: datetime) -> None:
    """Send every queued job to a worker of its zone; one that left its zone open gets the greenest.

    A job whose zone has no live worker stays queued and says so.
    """
    with database.session() as session:
        seen_since = at - timedelta(seconds=settings.lease_seconds)
        workers = GridRepository(session).live_workers(since=seen_since)

    def to_train(session: Session, job: Job) -> bool:
        zone = job.zone_asked or greenest_zone(session, workers, at=at)
        if zone is None or not any(zone in worker.zones for worker in workers):
            job.reason = f"waits for a worker{f' in zone {zone}' if zone else ''}: none is alive"
            return False
        job.zone, job.reason = zone, None
        send(celery, TRAIN, job.id, queue=train_queue(zone))
        JobRepository(session).record(job.id, "job.dispatched", at=at, zone=zone)
        return True

    _dispatch(database, settings, JobStatus.QUEUED, to_train, at=at)


def greenest_zone(session: Session, workers: Sequence[Worker], *, at: datetime) -> str | None:
    """Of the zones with a live worker, the one with the lowest intensity now; without any reading, the first."""
    zones = sorted({zone for worker in workers for zone in worker.zones})
    grid = GridRepository(session)

    def intensity(zone: str) -> float:
        reading = grid.newest(zone, at=at)
        return float("inf") if reading is None else reading.gco2e_per_kwh

    return min(zones, key=intensity, default=None)


def _dispatch(
    database: Database,
    settings: Settings,
    status: JobStatus,
    send_job: Callable[[Session, Job], bool],
    *,
    at: datetime,
) -> None:
    """Send the jobs of a status that are due; one whose message was sent long ago and not taken up is sent again.

    The message goes out before the transaction ends: a crash in between sends it twice, which a claim tells apart,
    while the other order could lose it.
    """
    overdue = at - timedelta(seconds=settings.redispatch_seconds)
    with database.session() as session:
        for job in JobRepository(session).undispatched(status, sent_before=overdue):
            try:
                sent = send_job(session, job)
            except BrokerDown as error:
                log.warning("broker.unreachable", job=job.id, error=str(error))
                return
            if sent:
                job.dispatched_at = at
                log.info("job.dispatched", job=job.id, status=status, zone=job.zone)
