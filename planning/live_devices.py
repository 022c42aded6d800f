"""The devices of the live training workers: what is known of them, and which attention they compute."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from greencore.device import CPU, Device
from greencore.settings.checks import check_processes
from greencore.settings.hyperparameters import Hyperparameters, SettingUnsupported
from store.repositories.workers import WorkerRepository
from store.tables import Worker

GIGABYTE = 10**9


def list_live_devices(
    session: Session, *, zone: str | None, within: timedelta, attention: str | None = None
) -> list[Device | None]:
    """List the devices of the live training workers that compute an attention, in `zone` if given.

    None for one whose memory or arithmetic is not known.
    """
    workers = WorkerRepository(session).list_live(within=within)
    return [
        get_device(worker)
        for worker in workers
        if zone in (None, worker.zone) and computes_attention(worker, attention)
    ]


def computes_attention(worker: Worker, attention: str | None) -> bool:
    """Return whether a worker's device computes a job's attention: `flash` needs a GPU."""
    return attention != "flash" or worker.device != CPU


def get_device(worker: Worker) -> Device | None:
    """Return a training worker's device; None where its memory or arithmetic is unknown, as of an earlier version's."""
    if not worker.memory_bytes or worker.computes_bf16 is None:
        return None
    return Device(worker.device, worker.memory_bytes, worker.computes_bf16, worker.gpus)


def find_largest_device(devices: Sequence[Device | None]) -> Device | None:
    """Return the device with the most memory; None where no memory is known."""
    known = [device for device in devices if device is not None]
    return max(known, key=lambda device: device.memory_bytes, default=None)


def select_with_gpus(devices: Sequence[Device | None], gpus: int) -> list[Device | None]:
    """Return the devices of workers that have so many; one of which nothing is known counts as one."""
    return [device for device in devices if gpus == 1 or (device is not None and device.gpus >= gpus)]


def list_gpu_numbers(hyperparameters: Hyperparameters, devices: Sequence[Device | None]) -> list[int]:
    """List the numbers of GPUs that `auto` may come to: 1, 2, 4 and so on, up to the most that a live worker has.

    With more than rows of a step some would have none.
    """
    try:
        check_processes(hyperparameters, 2)
    except SettingUnsupported:
        return [1]
    most = min(max((one.gpus for one in devices if one is not None), default=1), hyperparameters.batch_size)
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
