"""Readings of the device: time after all its work, the GPU's energy counter, and the peak of allocated memory."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.training.peak_memory import measure_cpu_peak


@dataclass(frozen=True)
class Reading:
    """Seconds of a monotonic clock, and joules of the GPU's counter; None without one."""

    seconds: float
    joules: float | None

    def since(self, earlier: "Reading") -> "Reading":
        """Return what has passed since an earlier reading."""
        joules = None if self.joules is None or earlier.joules is None else self.joules - earlier.joules
        return Reading(self.seconds - earlier.seconds, joules)


class Gauge:
    """Reads a device. `no_energy` says why there are no joules; None where the counter can be read."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._read_joules: Callable[[], float] | None = None
        self.no_energy: str | None = "the energy counter is a GPU's"
        if device.type == "cuda":
            self._read_joules, self.no_energy = _open_energy_counter()

    @property
    def free_bytes(self) -> int | None:
        """Bytes of the GPU's memory that are free, those that PyTorch keeps for reuse included; None on a CPU."""
        if self.device.type != "cuda":
            return None
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]

    def read(self) -> Reading:
        """Wait for all work of the device, and read clock and counter."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return Reading(time.perf_counter(), None if self._read_joules is None else self._read_joules())

    def measure_peak(self, model: torch.nn.Module, train: Callable[[], object]) -> int:
        """Call `train`, and return the most bytes that were allocated meanwhile, the model's included."""
        if self.device.type != "cuda":
            return measure_cpu_peak(model, train)
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        train()
        return torch.cuda.max_memory_allocated()


def _open_energy_counter() -> tuple[Callable[[], float] | None, str | None]:
    """Return a function that reads NVML's total-energy counter of PyTorch's GPU in joules, or why there is none.

    The driver renews it 10 to 50 times a second.
    """
    try:
        import pynvml
    except ImportError:
        return None, "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
        handle: Any = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return None, f"NVML has no energy counter of it: {error}"
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000, None
