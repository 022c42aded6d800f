"""`python -m worker prepare` and `python -m worker train`: one Celery worker each."""

import os
import sys

import structlog

from store.ids import new_id
from store.logs import configure_logs
from store.private_files import restrict_data_folder, set_private_umask
from store.settings import get_settings
from store.site import SITE_NOT_SET
from worker.app import PREPARE_QUEUE, app, train_queue
from worker.forking import load_before_forking
from worker.presence import announce, drain_on_shutdown

log = structlog.get_logger()

USAGE = "usage: python -m worker prepare|train"
# To train is to hold a GPU, which only the end of a process gives back for sure; what prepares keeps torch loaded.
TASKS_PER_PROCESS = {"train": 1, "prepare": 100}


def main(arguments: list[str]) -> None:
    """Run a worker until it is told to stop. Its child processes find its id in the environment."""
    if arguments not in (["prepare"], ["train"]):
        sys.exit(USAGE)
    [role] = arguments
    settings = get_settings()
    set_private_umask()
    configure_logs(settings)
    restrict_data_folder(settings.data_dir)
    worker_id = new_id("worker")
    os.environ["GREENTUNE_WORKER_ID"] = worker_id
    # As NVML numbers them: energy is metered of the very GPU that trains.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if role == "train":
        if settings.site is None:
            log.warning("site.unknown", consequence=SITE_NOT_SET)
        load_before_forking()
        announce(worker_id, "train", settings)
        drain_on_shutdown()
        queue = train_queue(settings.training_site.zone)
    else:
        announce(worker_id, "prepare", settings)
        queue = PREPARE_QUEUE
    app.worker_main(
        [
            "worker",
            "--hostname",
            f"{role}-{worker_id}@%h",
            "--queues",
            queue,
            "--max-tasks-per-child",
            str(TASKS_PER_PROCESS[role]),
            "--without-gossip",
            "--without-mingle",
            "--loglevel",
            "INFO",
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
