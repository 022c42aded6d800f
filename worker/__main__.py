"""`python -m worker prepare` and `python -m worker train`: run one Celery worker of that role."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import structlog
from celery.platforms import EX_FAILURE, EX_OK
from celery.signals import worker_init
from celery.worker import state
from sqlalchemy.exc import OperationalError

from greencore.device import CPU
from runtime.ids import new_id
from runtime.logs import configure_logs
from runtime.private_files import restrict_data_folder, set_private_umask
from runtime.settings import get_settings
from runtime.site import SITE_NOT_SET
from store.database import Database
from store.pooling import require_sessions
from worker.app import PREPARE_QUEUE, app, train_queue, worker_queue
from worker.device import count_devices, device_name
from worker.forking import preload_before_fork
from worker.idle_meter import start_idle_meter
from worker.registration import drain_on_shutdown, start_worker_heartbeat

log = structlog.get_logger()

USAGE = "usage: python -m worker prepare|train"
# Training holds a GPU, which only the end of a process frees for sure; a prepare process keeps torch loaded.
TASKS_PER_PROCESS = {"train": 1, "prepare": 100}


def main(arguments: list[str]) -> None:
    """Run a worker until it is asked to stop, and exit with its status, not 0 where an error ended it.

    Passes its id to its child processes in GREENTUNE_WORKER_ID.
    """
    if arguments not in (["prepare"], ["train"]):
        sys.exit(USAGE)
    [role] = arguments
    settings = get_settings()
    set_private_umask()
    configure_logs(settings)
    restrict_data_folder(settings.data_dir)
    worker_id = new_id("worker")
    os.environ["GREENTUNE_WORKER_ID"] = worker_id
    # NVML's order of GPUs, so that the GPU that trains is the one that is metered.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    try:
        require_sessions(Database(settings.database_url).url)
    except OperationalError:  # unreachable: `start_worker_heartbeat` tries again
        log.warning("database.awaited")
    except ValueError as error:
        sys.exit(str(error))
    if role == "train":
        if settings.site is None:
            log.warning("site.unknown", consequence=SITE_NOT_SET)
        concurrency = count_devices(settings)
        if device_name() == CPU and concurrency > 1:  # before torch is loaded
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // concurrency)))
        preload_before_fork()
        start_worker_heartbeat(worker_id, "train", settings)
        start_idle_meter(settings)
        drain_on_shutdown()
        queues = f"{train_queue(settings.training_site.zone)},{worker_queue(worker_id)}"
    else:
        start_worker_heartbeat(worker_id, "prepare", settings)
        concurrency, queues = 1, PREPARE_QUEUE
    started: list[Any] = []
    worker_init.connect(lambda sender, **_: started.append(sender), weak=False)
    app.worker_main(
        [
            "worker",
            f"--hostname={role}-{worker_id}@%h",
            f"--queues={queues}",
            f"--concurrency={concurrency}",
            f"--max-tasks-per-child={TASKS_PER_PROCESS[role]}",
            "--without-gossip",
            "--without-mingle",
            "--loglevel=INFO",
        ]
    )
    sys.exit(exit_status(started))


def exit_status(started: Sequence[Any]) -> int:
    """Return the exit status of Celery's worker: 0 only where it was asked to stop, and stopped in order."""
    status = started[0].exitcode if started else EX_FAILURE
    if status is None:  # Celery sets none where the worker was terminated
        status = EX_OK if state.should_stop == EX_OK and state.should_stop is not False else EX_FAILURE
    return int(status)


if __name__ == "__main__":
    main(sys.argv[1:])
