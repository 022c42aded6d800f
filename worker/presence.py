"""A training worker's sign of life, and its last wish: that the job it runs is drained."""

import threading
from collections.abc import Sequence

import structlog
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from sqlalchemy.exc import OperationalError

from greencore.clock import utc_now
from store.database import Database
from store.leases import drain
from store.settings import Settings
from store.workers import WorkerRepository

log = structlog.get_logger()


def announce(worker_id: str, zones: Sequence[str], settings: Settings) -> None:
    """Have this process tell the database that it is alive, from the moment it takes jobs until it stops."""
    database = Database(settings.database_url)
    stopped = threading.Event()

    def beat() -> None:
        while True:
            try:
                with database.session() as session:
                    WorkerRepository(session).seen(worker_id, zones=zones, device=device_name(), at=utc_now())
            except OperationalError as error:
                log.warning("worker.unseen", worker=worker_id, error=str(error.orig))
            if stopped.wait(settings.heartbeat_seconds):
                return

    @worker_ready.connect(weak=False)
    def ready(**_: object) -> None:
        threading.Thread(target=beat, name="presence", daemon=True).start()
        log.info("worker.ready", worker=worker_id, zones=list(zones), device=device_name())

    @worker_shutting_down.connect(weak=False)
    def shutting_down(**_: object) -> None:
        with database.session() as session:
            for job_id in drain(session, worker_id):
                log.info("job.draining", job=job_id, worker=worker_id)

    @worker_shutdown.connect(weak=False)
    def shutdown(**_: object) -> None:
        stopped.set()
        with database.session() as session:
            WorkerRepository(session).gone(worker_id)
        database.dispose()


def device_name() -> str:
    """The first GPU's name, or "cpu"; asked of the driver, since this process never loads torch."""
    import pynvml

    try:
        pynvml.nvmlInit()
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return "cpu"
    return str(name)
