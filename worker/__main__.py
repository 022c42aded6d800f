"""`python -m worker prepare` and `python -m worker train`: one Celery worker each."""

import os
import sys

from store.ids import new_id
from store.logs import configure_logs
from store.private_files import restrict_data_folder, set_private_umask
from store.settings import get_settings
from worker.app import PREPARE_QUEUE, app, train_queue
from worker.forking import load_before_forking
from worker.presence import announce, drain_on_shutdown

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
    zones = settings.worker_zones or list(settings.zones)
    unknown = set(zones) - set(settings.zones)
    if unknown:
        sys.exit(f"GREENTUNE_WORKER_ZONES: {', '.join(sorted(unknown))} is not in GREENTUNE_ZONES")
    if role == "train":
        load_before_forking()
        announce(worker_id, "train", zones, settings)
        drain_on_shutdown()
    else:
        announce(worker_id, "prepare", (), settings)
    queues = [PREPARE_QUEUE] if role == "prepare" else [train_queue(zone) for zone in zones]
    app.worker_main(
        [
            "worker",
            "--hostname",
            f"{role}-{worker_id}@%h",
            "--queues",
            ",".join(queues),
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
