"""The device on which this machine's worker trains: its name, its memory, and whether it computes in bfloat16."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from greencore.device import CPU
from greencore.energy.devices import Gpu, find_mig_parent, select_visible_gpus
from greencore.host_memory import read_host_memory

BF16_COMPUTE_CAPABILITY = 8  # Ampere's; as torch.cuda.is_bf16_supported without emulation


@dataclass(frozen=True)
class VisibleGpu:
    """Name and bytes of the first GPU that CUDA shows to this process, and whether it computes in bfloat16.

    A GPU without memory of its own shares the host's, and has its bytes.
    """

    name: str
    memory_bytes: int
    computes_bf16: bool


def device_name() -> str:
    """Return the name of the first visible GPU, or "cpu"."""
    gpu = _read_gpu_once()
    return CPU if gpu is None else gpu.name


def device_memory() -> int:
    """Return the bytes of the first visible GPU's memory, or of the host's within its container's limit."""
    gpu = _read_gpu_once()
    return read_host_memory() if gpu is None else gpu.memory_bytes


@lru_cache(maxsize=1)
def device_computes_bf16() -> bool:
    """Return whether the device computes natively in bfloat16, by the rule that a run follows; may load torch."""
    gpu = _read_gpu_once()
    if gpu is not None:
        return gpu.computes_bf16
    import torch

    from greencore.training.models.precision import supports_bf16

    return supports_bf16(torch.device("cpu"))


def read_visible_gpu(environment: Mapping[str, str], nvml: Any) -> VisibleGpu | None:
    """Return the GPU that training uses in `environment`, CUDA's first; None where it shows none.

    It is read through `nvml` (the module pynvml), since a worker must not initialise CUDA. Of a MIG instance that the
    environment names by its UUID, name and memory are the instance's. Raises NVMLError without a driver.
    """
    nvml.nvmlInit()
    try:
        gpus = []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            gpus.append(Gpu(index, str(nvml.nvmlDeviceGetUUID(handle)), str(nvml.nvmlDeviceGetName(handle))))
        first = select_visible_gpus(environment, gpus, mig_parent=partial(find_mig_parent, nvml=nvml)).first
        if first is None:
            return None
        whole = nvml.nvmlDeviceGetHandleByIndex(first)
        part = _get_mig_instance(environment, nvml) or whole
        major, _ = nvml.nvmlDeviceGetCudaComputeCapability(whole)
        return VisibleGpu(
            name=str(nvml.nvmlDeviceGetName(part)),
            memory_bytes=_read_memory(part, nvml),
            computes_bf16=major >= BF16_COMPUTE_CAPABILITY,
        )
    finally:
        nvml.nvmlShutdown()


@lru_cache(maxsize=1)
def _read_gpu_once() -> VisibleGpu | None:
    import pynvml

    try:
        return read_visible_gpu(os.environ, pynvml)
    except pynvml.NVMLError:
        return None


def _read_memory(part: Any, nvml: Any) -> int:
    """Return the bytes of a GPU's memory; those of the host for one that shares it, for which NVML reports none."""
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(part).total)
    except nvml.NVMLError:
        return read_host_memory()


def _get_mig_instance(environment: Mapping[str, str], nvml: Any) -> Any:
    """Return the handle of the MIG instance that the environment names first; None for a whole GPU."""
    named = environment.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    if not named.startswith("MIG-"):
        return None
    try:
        return nvml.nvmlDeviceGetHandleByUUID(named)
    except nvml.NVMLError:
        return None
