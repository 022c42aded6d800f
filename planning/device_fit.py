"""Which live workers' devices can run a prepared job, and whether its blocks recompute on one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from greencore.device import Device
from greencore.settings.hyperparameters import Hyperparameters
from planning.live_devices import GIGABYTE, computes_attention, get_device
from store.tables import Job, Worker

FLASH_NEEDS_GPU = "flash attention needs one, and every live worker trains on a CPU"


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of a job's steps in one precision: at least without recomputation of its own accord, and with it.

    Of a micro-batch under `auto` they are of one row. `recomputed` is None where the settings forbid or demand it, for
    the method prefix, whose blocks never recompute, and where that step could not be traced.
    """

    kept: int
    recomputed: int | None = None

    @property
    def least(self) -> int:
        """Bytes of the smallest steps that are known."""
        return self.kept if self.recomputed is None else min(self.kept, self.recomputed)


def list_fitting_workers(job: Job, workers: Sequence[Worker]) -> list[Worker]:
    """List the workers with the job's GPUs, which hold its steps and compute its attention, as far as is known.

    The job's zone is not looked at.
    """
    settings, needs = Hyperparameters.model_validate(job.hyperparameters), _read_needs(job)
    fitting = list[Worker]()
    for worker in workers:
        if worker.gpus < job.gpus or not computes_attention(worker, settings.attention):
            continue
        device = get_device(worker)
        need = None if device is None else needs.get(_choose_precision(job, settings, device))
        if device is None or need is None or need.least <= device.memory_bytes:
            fitting.append(worker)
    return fitting


def explain_unfit_devices(job: Job, workers: Sequence[Worker]) -> str:
    """Return the reason of a job that none of these workers' devices can run: how far the closest of them is off."""
    most = max(worker.gpus for worker in workers)
    if most < job.gpus:
        return f"waits for a worker with {job.gpus} GPUs: the largest that is alive has {most}"
    settings, needs = Hyperparameters.model_validate(job.hyperparameters), _read_needs(job)
    lacking = [
        (need.least - device.memory_bytes, need.least, device)
        for worker in workers
        if worker.gpus >= job.gpus
        and computes_attention(worker, settings.attention)
        and (device := get_device(worker)) is not None
        and (need := needs.get(_choose_precision(job, settings, device))) is not None
    ]
    if not lacking:
        return f"waits for a worker with a GPU: {FLASH_NEEDS_GPU}"
    _, least, closest = min(lacking, key=lambda found: found[0])
    return (
        f"waits for a worker whose device holds the {least / GIGABYTE:.3g} GB of its steps: the closest that is alive "
        f"({closest.name}) has {closest.memory_bytes / GIGABYTE:.3g} GB"
    )


def choose_recomputation(job: Job, device: Device) -> bool | Literal["auto"]:
    """Return whether a job's blocks recompute on a device; `auto` where preparation could not trace that."""
    settings = Hyperparameters.model_validate(job.hyperparameters)
    need = _read_needs(job).get(_choose_precision(job, settings, device))
    if settings.gradient_checkpointing != "auto" or need is None:
        return settings.gradient_checkpointing
    if need.kept <= device.memory_bytes:
        return False
    return "auto" if need.recomputed is None else True


def _choose_precision(job: Job, settings: Hyperparameters, device: Device) -> str:
    """Return the precision that a job takes on a device: that of its run once it has begun, whatever the device."""
    return job.precision or device.choose_precision(settings)


def _read_needs(job: Job) -> Mapping[str, MemoryNeed]:
    """Return what a prepared job needs in each precision that it would take on a device; nothing where unknown."""
    stored: Mapping[str, Any] = (job.estimate or {}).get("memory_needs") or {}
    return {precision: MemoryNeed(**need) for precision, need in stored.items()}
