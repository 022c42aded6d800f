"""A worker's heartbeat and row in the database, its host, and the draining of its job as it stops."""

import os
import platform
import signal
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import structlog
from celery.platforms import EX_FAILURE
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from celery.worker import state
from sqlalchemy.exc import DBAPIError

from runtime.settings import Settings
from store.database import Database
from store.pooling import TransactionPooling, require_sessions
from store.repositories.workers import Role, WorkerRepository
from worker.database_retry import STATEMENT_TIMEOUT_SECONDS
from worker.device import count_devices, device_computes_bf16, device_memory, device_name
from worker.forking import block_forking

log = structlog.get_logger()

DRAIN_POLL_SECONDS = 0.2
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def start_worker_heartbeat(worker_id: str, role: Role, settings: Settings) -> None:
    """Send this worker's heartbeat from a thread, from worker_ready to worker_shutdown, which removes its row."""
    database = Database(settings.database_url, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
    stopped = threading.Event()
    site = settings.training_site

    def beat() -> None:
        has_sessions = False
        while True:
            with block_forking():
                try:
                    if not has_sessions:
                        require_sessions(database.url)
                        has_sessions = True
                    with database.session() as session:
                        WorkerRepository(session).record_heartbeat(
                            worker_id,
                            role=role,
                            site=site,
                            device=device_name(),
                            memory_bytes=device_memory(settings),
                            computes_bf16=device_computes_bf16() if role == "train" else None,
                            gpus=count_devices(settings) if role == "train" else 1,
                        )
                except TransactionPooling as error:
                    log.critical("worker.refused", reason=str(error))
                    state.should_terminate = EX_FAILURE
                    return
                except DBAPIError as error:
                    log.warning("worker.unseen", worker=worker_id, error=str(error.orig))
            if stopped.wait(settings.heartbeat_seconds):
                return

    presence = threading.Thread(target=beat, name="presence", daemon=True)

    @worker_ready.connect(weak=False)
    def ready(**_: object) -> None:
        presence.start()
        zone = site.zone if role == "train" else None
        gpus = count_devices(settings) if role == "train" else None
        log.info("worker.ready", worker=worker_id, role=role, zone=zone, device=device_name(), gpus=gpus)

    @worker_shutdown.connect(weak=False)
    def shutdown(**_: object) -> None:
        stopped.set()
        if presence.is_alive():  # a heartbeat after the removal would bring the row back
            presence.join(STATEMENT_TIMEOUT_SECONDS)
        try:
            with database.session() as session:
                WorkerRepository(session).remove(worker_id)
        except DBAPIError as error:
            log.warning("worker.not_signed_off", worker=worker_id, error=str(error.orig))
        database.dispose()


def drain_on_shutdown() -> None:
    """Forward a worker's shutdown as SIGTERM to the processes that run its tasks, which Celery leaves running.

    A signal reaches them also while the database is unreachable.
    """
    stopped = threading.Event()

    def forward_shutdown() -> None:
        signalled_pids: set[int] = set()
        while not stopped.wait(DRAIN_POLL_SECONDS):
            for request in list(state.active_requests):
                pid = request.worker_pid
                if pid and pid not in signalled_pids:  # a task without a process yet is signalled in the next round
                    signalled_pids.add(pid)
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
                    log.info("task.draining", task=request.id, pid=pid)

    draining: list[threading.Thread] = []

    @worker_shutting_down.connect(weak=False)
    def shutting_down(**_: object) -> None:
        if not draining:  # a second signal may interrupt this handler
            draining.append(threading.Thread(target=forward_shutdown, name="drain", daemon=True))
            draining[0].start()

    @worker_shutdown.connect(weak=False)
    def shutdown(**_: object) -> None:
        stopped.set()


@lru_cache(maxsize=1)
def host_id() -> str:
    """Return an id that all processes on this machine share until it reboots, in containers, too.

    It is the kernel's boot id, or the host name where there is none. Processes with the same id share a monotonic
    clock, which restarts with it.
    """
    try:
        return BOOT_ID.read_text().strip() or platform.node()
    except OSError:
        return platform.node()
