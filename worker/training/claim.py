"""Claims a job and runs one attempt of it under its lease. Claiming does not load torch."""

import os
import platform
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import structlog
from sqlalchemy.orm import Session

from greencore.clock import utc_now
from planning.device_fit import list_fitting_workers
from runtime.settings import Settings, get_settings
from runtime.tracing import span
from store.database import Database
from store.lifecycle import progress
from store.lifecycle.leases import Lease, LeaseLost, claim
from store.repositories.jobs import JobRepository
from store.repositories.workers import WorkerRepository
from worker.database_retry import (
    STATEMENT_TIMEOUT_SECONDS,
    TRANSIENT_DATABASE_ERRORS,
    retry_while_database_down,
)
from worker.device import device_name, take_gpus
from worker.device_locks import DeviceLocks
from worker.training.heartbeat import LeaseHeartbeat
from worker.training.leased_writer import LeasedWriter

log = structlog.get_logger()

DEVICE_SECONDS = 10.0  # in which the process of the job before must have ended


def train_job(job_id: str, *, task_id: str | None = None, settings: Settings | None = None) -> None:
    """Claim a queued job and run an attempt to its end, or until it must stop; do nothing where the claim fails.

    Where the database stays unreachable or the lease is lost, nothing is written: the lease expires.
    """
    settings = settings or get_settings()
    database = Database(settings.database_url, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
    # The handler is installed before the claim, so that SIGTERM never ends a process that holds a lease.
    with database, _handle_sigterm() as sigterm:
        lease = _claim(database, settings, job_id, task_id)
        if lease is not None:
            with structlog.contextvars.bound_contextvars(job=job_id, attempt=lease.attempt):
                _run_with_lease(lease, database, settings, sigterm)


def _claim(database: Database, settings: Settings, job_id: str, task_id: str | None) -> Lease | None:
    worker_id = os.environ.get("GREENTUNE_WORKER_ID", f"{platform.node()}-{os.getpid()}")

    def claim_once() -> Lease | None:
        with database.session() as session:
            if not _holds_job(session, settings, job_id, worker_id):
                # The fleet has changed since the message was sent. The scheduler sends it again after a while, as one
                # that was lost: at once, the message could come back here.
                return None
            return claim(
                session,
                job_id,
                worker_id=worker_id,
                device=device_name(),
                at=utc_now(),
                lease_seconds=settings.lease_seconds,
                task_id=task_id,
                pue=settings.training_site.pue,
                assumed_power_w=settings.assumed_power_w,
                zone=settings.training_site.zone,
            )

    def count_gpus() -> int:
        with database.session() as session:
            job = JobRepository(session).get(job_id)
            return 1 if job is None else job.gpus

    try:
        count = retry_while_database_down(count_gpus, timeout_seconds=settings.lease_seconds)
        # Locked to the end of this process, with which alone a GPU's memory is free.
        if not take_gpus(count, settings, DeviceLocks(), wait_seconds=DEVICE_SECONDS):
            log.info("claim.refused", job=job_id, worker=worker_id, reason=f"fewer than {count} of its GPUs are free")
            return None
        lease = retry_while_database_down(claim_once, timeout_seconds=settings.lease_seconds)
    except TRANSIENT_DATABASE_ERRORS as error:  # the scheduler sends the job again
        log.warning("claim.given_up", job=job_id, error=str(error.orig))
        return None
    log.info("claim.refused" if lease is None else "job.claimed", job=job_id, worker=worker_id)
    return lease


def _holds_job(session: Session, settings: Settings, job_id: str, worker_id: str) -> bool:
    """Return whether this worker may run the job: by the memory of its devices, and by how many of them are free.

    Locks the worker's row, so that two of its processes do not take the same devices.
    """
    job, workers = JobRepository(session).get(job_id), WorkerRepository(session)
    zone = settings.training_site.zone
    live = [one for one in workers.list_live(within=timedelta(seconds=settings.lease_seconds)) if one.zone == zone]
    if job is None or worker_id not in {worker.id for worker in live}:  # known from its next heartbeat on
        return True
    if worker_id not in {worker.id for worker in list_fitting_workers(job, live)}:
        return False
    return workers.count_free_gpus(worker_id) >= job.gpus


def _run_with_lease(lease: Lease, database: Database, settings: Settings, sigterm: "SigtermHandler") -> None:
    with LeaseHeartbeat(database, lease, settings) as heartbeat:
        sigterm.attach(heartbeat)
        writer = LeasedWriter(database, lease, heartbeat, lease_seconds=settings.lease_seconds)
        try:
            _run(writer, settings)
        except LeaseLost:
            log.warning("attempt.abandoned", reason="its lease is lost")
        except TRANSIENT_DATABASE_ERRORS as error:
            log.warning("attempt.abandoned", reason=str(error.orig))


def _run(writer: LeasedWriter, settings: Settings) -> None:
    """Train, and fail the job on errors. Raises `LeaseLost` and `TRANSIENT_DATABASE_ERRORS`."""
    from greencore.training.launch.launcher import ProcessesLost
    from worker.failure_reports import explain_error
    from worker.training.attempt import TrainingAttempt

    try:
        attempt, lease = TrainingAttempt(writer, settings), writer.lease
        parent, job_id, number = attempt.traceparent, lease.job_id, lease.attempt
        with span("attempt", kind="consumer", parent=parent, greentune__job=job_id, greentune__attempt=number):
            attempt.run()
    except (LeaseLost, *TRANSIENT_DATABASE_ERRORS):
        raise
    except ProcessesLost as lost:
        log.warning("attempt.lost", reason=str(lost))
        writer.write(progress.lose_attempt, at=utc_now(), reason=str(lost), max_attempts=settings.max_attempts)
    except Exception as fault:
        log.exception("attempt.failed")
        error = explain_error(fault, reference=f"job={writer.lease.job_id} attempt={writer.lease.attempt}")
        writer.write(progress.fail, at=utc_now(), error=error)


class SigtermHandler:
    """Signal handler that drains the heartbeat on SIGTERM, also where the signal came before `attach`."""

    def __init__(self) -> None:
        self._received = False
        self._heartbeat: LeaseHeartbeat | None = None

    def __call__(self, *_: object) -> None:
        self._received = True
        if self._heartbeat is not None:
            self._heartbeat.drain()

    def attach(self, heartbeat: LeaseHeartbeat) -> None:
        """Set the heartbeat to drain, now if the signal has come, else when it comes."""
        self._heartbeat = heartbeat
        if self._received:
            heartbeat.drain()


@contextmanager
def _handle_sigterm() -> Iterator[SigtermHandler]:
    """Handle SIGTERM, from the worker or a service manager, while the block runs."""
    sigterm = SigtermHandler()
    before = signal.signal(signal.SIGTERM, sigterm)
    try:
        yield sigterm
    finally:
        signal.signal(signal.SIGTERM, before)
