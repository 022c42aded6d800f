"""Which live workers' devices can run a prepared job, and whether its blocks recompute on one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from greencore.device import CPU, Device
from greencore.hyperparameters import Hyperparameters
from planning.peak_memory import GIGABYTE, get_device
from store.tables import Job, Worker

FLASH_NEEDS_GPU = "flash attention needs one, and every live worker trains on a CPU"


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of a job's steps in one precision: at least without recomputation of its own accord, and with it.

    Of a micro-batch under `auto` they are of one row. `recomputed` is None where the settings forbid or demand it, and
    where it was not traced, since every device that was alive holds `kept`.
    """

    kept: int
    recomputed: int | None = None

    @property
    def least(self) -> int:
        """Bytes of the smallest steps that are known."""
        return self.kept if self.recomputed is None else min(self.kept, self.recomputed)


def list_fitting_workers(job: Job, workers: Sequence[Worker]) -> list[Worker]:
    """List the workers whose device holds the job's steps and computes its attention, as far as is known.

    The job's zone is not looked at. Where no device holds them, and `auto` may recompute but was not traced, they are
    those with the most memory: there the run itself decides.
    """
    if job.hyperparameters.get("attention") == "flash":
        workers = [worker for worker in workers if worker.device != CPU]
    fitting = [worker for worker in workers if _fits(job, worker)]
    if fitting or Hyperparameters.model_validate(job.hyperparameters).gradient_checkpointing != "auto":
        return fitting
    untraced = [worker for worker in workers if (need := _find_need_on(job, worker)) and need.recomputed is None]
    most = max((worker.memory_bytes or 0 for worker in untraced), default=0)
    return [worker for worker in untraced if worker.memory_bytes == most]


def explain_unfit_devices(job: Job, workers: Sequence[Worker]) -> str:
    """Return the reason of a job that none of these workers' devices can run."""
    if job.hyperparameters.get("attention") == "flash" and all(worker.device == CPU for worker in workers):
        return f"waits for a worker with a GPU: {FLASH_NEEDS_GPU}"
    least = min(need.least for need in _read_needs(job).values())
    largest = max(workers, key=lambda worker: worker.memory_bytes or 0)
    return (
        f"waits for a worker whose device holds the {least / GIGABYTE:.3g} GB of its steps: the largest that is alive "
        f"({largest.device}) has {(largest.memory_bytes or 0) / GIGABYTE:.3g} GB"
    )


def choose_recomputation(job: Job, device: Device) -> bool | Literal["auto"]:
    """Return whether a job's blocks recompute on a device; `auto` where preparation did not trace that."""
    setting = Hyperparameters.model_validate(job.hyperparameters).gradient_checkpointing
    need = _find_need(job, device)
    if setting != "auto" or need is None:
        return setting
    if need.kept <= device.memory_bytes:
        return False
    return "auto" if need.recomputed is None else True


def _fits(job: Job, worker: Worker) -> bool:
    need = _find_need_on(job, worker)
    return need is None or need.least <= (worker.memory_bytes or 0)


def _find_need_on(job: Job, worker: Worker) -> MemoryNeed | None:
    """Return what the job needs on a worker's device; None where that, or the device's memory, is not known."""
    device = get_device(worker)
    return None if device is None else _find_need(job, device)


def _find_need(job: Job, device: Device) -> MemoryNeed | None:
    """Return what the job needs in the precision that it would take on the device."""
    return _read_needs(job).get(device.choose_precision(Hyperparameters.model_validate(job.hyperparameters)))


def _read_needs(job: Job) -> Mapping[str, MemoryNeed]:
    stored: Mapping[str, Any] = (job.estimate or {}).get("memory_needs") or {}
    return {precision: MemoryNeed(**need) for precision, need in stored.items()}
