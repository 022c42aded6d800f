"""The devices on which this machine's worker trains: name, memory, and whether they compute in bfloat16.

The devices of a machine count as equal: a job may run on any of them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from greencore.device import CPU
from greencore.energy.devices import Gpu, find_mig_parent, select_visible_gpus
from greencore.host_memory import read_host_memory
from runtime.settings import Settings
from worker.device_locks import DeviceLocks

BF16_COMPUTE_CAPABILITY = 8  # Ampere's; as torch.cuda.is_bf16_supported without emulation
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class VisibleGpu:
    """A GPU that CUDA shows to this process: its entry in CUDA_VISIBLE_DEVICES, name, bytes, and its arithmetic.

    A GPU without memory of its own shares the host's, and has its bytes.
    """

    entry: str
    name: str
    memory_bytes: int
    computes_bf16: bool


def device_name() -> str:
    """Return the name of the first visible GPU, or "cpu"."""
    gpus = _read_gpus_once()
    return gpus[0].name if gpus else CPU


def device_memory(settings: Settings) -> int:
    """Return the bytes of the smallest visible GPU's memory.

    Without a GPU those of the host's within its container's limit, divided among the processes that train there.
    """
    gpus = _read_gpus_once()
    return min(gpu.memory_bytes for gpu in gpus) if gpus else read_host_memory() // count_devices(settings)


def device_computes_bf16() -> bool:
    """Return whether the devices compute natively in bfloat16, by the rule that a run follows; may load torch."""
    gpus = _read_gpus_once()
    return all(gpu.computes_bf16 for gpu in gpus) if gpus else _cpu_computes_bf16()


def count_devices(settings: Settings) -> int:
    """Return how many devices this machine's worker gives to jobs: visible GPUs, or processes where there is none."""
    gpus = _read_gpus_once()
    return min(len(gpus), settings.gpus or len(gpus)) if gpus else settings.gpus or 1


def take_gpus(count: int, settings: Settings, locks: DeviceLocks, *, wait_seconds: float) -> bool:
    """Lock `count` of the worker's GPUs, and show CUDA only these in this process, before CUDA is initialised.

    Returns False where fewer come free within `wait_seconds`. Without a GPU there is nothing to take.
    """
    gpus = _read_gpus_once()[: count_devices(settings)]
    if not gpus:
        return True
    taken = locks.take([gpu.entry for gpu in gpus], count, wait_seconds=wait_seconds)
    if taken is None:
        return False
    os.environ[VISIBLE_DEVICES] = ",".join(taken)
    _read_gpus_once.cache_clear()
    return True


def read_visible_gpus(environment: Mapping[str, str], nvml: Any) -> tuple[VisibleGpu, ...]:
    """Return the GPUs that CUDA shows in `environment`, in its order, of which training uses the first.

    They are read through `nvml` (the module pynvml), since a worker must not initialise CUDA. Of a MIG instance that
    the environment names by its UUID, name and memory are the instance's. Raises NVMLError without a driver.
    """
    nvml.nvmlInit()
    try:
        gpus = []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            gpus.append(Gpu(index, str(nvml.nvmlDeviceGetUUID(handle)), str(nvml.nvmlDeviceGetName(handle))))
        select = partial(select_visible_gpus, gpus=gpus, mig_parent=partial(find_mig_parent, nvml=nvml))
        found = []
        for entry in select(environment).names:
            [index] = select({**environment, VISIBLE_DEVICES: entry}).indices
            found.append(_read_gpu(entry, nvml.nvmlDeviceGetHandleByIndex(index), nvml))
        return tuple(found)
    finally:
        nvml.nvmlShutdown()


def _read_gpu(entry: str, whole: Any, nvml: Any) -> VisibleGpu:
    part = _get_mig_instance(entry, nvml) or whole
    major, _ = nvml.nvmlDeviceGetCudaComputeCapability(whole)
    return VisibleGpu(
        entry=entry,
        name=str(nvml.nvmlDeviceGetName(part)),
        memory_bytes=_read_memory(part, nvml),
        computes_bf16=major >= BF16_COMPUTE_CAPABILITY,
    )


@lru_cache(maxsize=1)
def _read_gpus_once() -> tuple[VisibleGpu, ...]:
    import pynvml

    try:
        return read_visible_gpus(os.environ, pynvml)
    except pynvml.NVMLError:
        return ()


@lru_cache(maxsize=1)
def _cpu_computes_bf16() -> bool:
    import torch

    from greencore.training.models.precision import supports_bf16

    return supports_bf16(torch.device("cpu"))


def _read_memory(part: Any, nvml: Any) -> int:
    """Return the bytes of a GPU's memory; those of the host for one that shares it, for which NVML reports none."""
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(part).total)
    except nvml.NVMLError:
        return read_host_memory()


def _get_mig_instance(entry: str, nvml: Any) -> Any:
    """Return the handle of the MIG instance of an entry; None for a whole GPU."""
    if not entry.startswith("MIG-"):
        return None
    try:
        return nvml.nvmlDeviceGetHandleByUUID(entry)
    except nvml.NVMLError:
        return None
