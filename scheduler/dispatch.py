"""Sends jobs to workers: new ones to be prepared, queued ones to be trained in their zone."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from celery import Celery
from kombu.exceptions import OperationalError as BrokerDown
from sqlalchemy.orm import Session

from greencore.carbon import Signal
from greencore.policy.gating import Look
from scheduler.gates import is_gated, look_at_gate
from store.database import Database
from store.eta import expected_end_of_waiting, keep
from store.grid import signal_named
from store.jobs import JobRepository
from store.pace import pace
from store.placement import place, zones_of
from store.settings import Settings
from store.status import JobStatus
from store.tables import Job, Worker
from store.transitions import transition
from store.workers import WorkerRepository
from worker.app import PREPARE, PREPARE_QUEUE, TRAIN, send, train_queue

log = structlog.get_logger()


def dispatch_new_jobs(database: Database, celery: Celery, settings: Settings, *, at: datetime) -> None:
    """Send every job that waits for validation to a prepare worker."""

    def to_prepare(session: Session, job: Job) -> bool:
        send(celery, PREPARE, job.id, queue=PREPARE_QUEUE)
        return True

    _dispatch(database, settings, JobStatus.VALIDATING, to_prepare, at=at)


def dispatch_queued_jobs(
    database: Database, celery: Celery, settings: Settings, signals: Mapping[str, Signal], *, at: datetime
) -> None:
    """Send every queued job whose gate is open to a worker of its zone; defer the others, and say until when.

    A job that left its zone open gets the one that is expected to be greenest. One whose zone has no live worker
    stays queued and says so. A deferred job is looked at again when its time has come.
    """
    with database.session() as session:
        workers = live_workers(session, settings, at=at)
        for job in JobRepository(session).deferred(due=at):
            found = _look(session, job, workers, settings, signals, at=at)
            if found is None or found.opens:
                transition(session, job, JobStatus.QUEUED, at=at, reason=None if found is None else found.reason)
            else:
                job.reason = found.reason

    def to_train(session: Session, job: Job) -> bool:
        found = _look(session, job, workers, settings, signals, at=at)
        if found is None:
            return False
        if not found.opens:
            transition(session, job, JobStatus.DEFERRED, at=at, reason=found.reason, saving=found.saving)
            log.info("job.deferred", job=job.id, until=found.until and found.until.isoformat(), reason=found.reason)
            return False
        assert job.zone is not None
        job.reason = found.reason if is_gated(job) else None
        send(celery, TRAIN, job.id, queue=train_queue(job.zone))
        JobRepository(session).record(
            job.id, "job.dispatched", at=at, zone=job.zone, reason=job.reason, forced=found.forced or None
        )
        return True

    _dispatch(database, settings, JobStatus.QUEUED, to_train, at=at)


def pause_running_jobs(database: Database, settings: Settings, *, at: datetime) -> None:
    """Ask running jobs to stop at their next step where their gate closes; they go back to the queue, and wait there.

    Only a gate of the mode "pause" closes on a job that has begun.
    """
    with database.session() as session:
        for job in JobRepository(session).running_to_look_at(due=at):
            assert job.zone is not None
            expected = pace(session, job, settings, device=job.device)
            found = look_at_gate(
                session, job, expected, settings, zone=job.zone, signal=signal_named(job.signal), computing=True, at=at
            )
            if not found.opens:
                job.control = "defer"
                JobRepository(session).record(job.id, "gate.closed", at=at, reason=found.reason, saving=found.saving)
                log.info("gate.closed", job=job.id, reason=found.reason)


def live_workers(session: Session, settings: Settings, *, at: datetime) -> Sequence[Worker]:
    """The training workers that were seen within the time of a lease."""
    return WorkerRepository(session).alive(since=at - timedelta(seconds=settings.lease_seconds))


def _look(
    session: Session,
    job: Job,
    workers: Sequence[Worker],
    settings: Settings,
    signals: Mapping[str, Signal],
    *,
    at: datetime,
) -> Look | None:
    """Place a job and look at its gate; None, with the reason in the job, where no worker could run it."""
    zones = [zone for zone in zones_of(workers) if zone in signals]
    expected = None
    if zones:
        expected = pace(session, job, settings, device=job.device or next(worker.device for worker in workers))
    if job.zone_asked is None:
        # What has been priced by one signal stays with it.
        zones = [zone for zone in zones if job.signal in (None, signals[zone])]
        placement = place(session, zones, signals, expected, job.epochs, at=at)
        zone, why = (None, None) if placement is None else (placement.zone, placement.reason)
    else:
        zone, why = job.zone_asked, None
    if zone is None or zone not in zones:
        kind = f" of a zone with a {job.signal} intensity" if zone is None and job.signal is not None else ""
        job.reason = f"waits for a worker{f' in zone {zone}' if zone else kind}: none is alive"
        return None
    job.zone = zone
    job.signal = job.signal or signals[zone]
    found = Look(True, None, 0.0, False, False, False, why or "no gate")
    if is_gated(job):
        signal = signal_named(job.signal)
        found = look_at_gate(session, job, expected, settings, zone=zone, signal=signal, computing=False, at=at)
    there = sum(zone in worker.zones for worker in workers)
    keep(job, expected_end_of_waiting(session, job, expected, workers=there, at=at))
    return found


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
