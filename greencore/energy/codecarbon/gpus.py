"""GPUs in CodeCarbon: their selection, and energy readings with estimates for those that do not answer."""

import os
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from greencore.energy.devices import Gpu, GpuId, find_mig_parent, select_gpus, select_visible_gpus
from greencore.energy.interval import JOULES_PER_KWH
from greencore.energy.methods import (
    DESIGN_POWER,
    ENERGY_COUNTER,
    LAST_POWER,
    NONE,
    SAMPLED_POWER,
    UNREADABLE,
    unresponsive_method,
)

# A shorter interval may fall between two updates of a counter.
COUNTER_SECONDS = 1.0
# The power of a shorter interval is too inaccurate.
POWER_SECONDS = 0.5
# A counter that stops within an interval makes its power too low: the larger of the last two is used.
KNOWN_POWERS = 2
_GPU_LIBRARIES = {"NvidiaGPUDevice": "NVML", "AMDGPUDevice": "AMD SMI"}


class GpuEnergyReader:
    """Replacement of CodeCarbon's `AllGPUDevices.get_delta`, which drops the energy of all GPUs where one fails.

    A GPU does not answer where reading it raises, where it gives neither energy nor power, or where its counter does
    not change. Its energy is then estimated from its last known power, or else from its power limit. CodeCarbon
    deducts the estimate from the counter's growth once the GPU answers again.
    """

    def __init__(self, devices: Sequence[Any], notes: Sequence[str] = ()) -> None:
        self._devices, self._notes = devices, notes
        self._powers_w: dict[int, deque[float]] = {}
        # The basis of the estimate of each GPU that does not answer, by its index.
        self._unresponsive: dict[int, str] = {}

    @property
    def uuids(self) -> tuple[str, ...]:
        """UUIDs of the GPUs, in the order of `last_kwh`."""
        return tuple(str(device._uuid) for device in self._devices)

    @property
    def power_limit_w(self) -> float:
        """Sum of the power limits of all GPUs, in W."""
        return sum(float(device._power_limit or 0.0) for device in self._devices)

    def last_kwh(self) -> list[float]:
        """Return the energy of each GPU in the last reading, in kWh."""
        return [float(device.energy_delta.kWh) for device in self._devices]

    @property
    def method(self) -> str:
        """Measurement method of the last reading; "none" without GPUs.

        "NVML energy counter" is the device's own counter; "NVML sampled power" is the mean of one power reading a
        second, on devices without a counter or while it cannot be read; "NVML does not answer: ..." is an estimate.
        Several methods are separated by commas; notes on the selection follow in brackets.
        """
        names = sorted({self._device_method(device) for device in self._devices})
        return ", ".join(names) + (f" ({', '.join(self._notes)})" if self._notes else "") if names else NONE

    def get_delta(self, last_duration: Any) -> list[dict[str, Any]]:
        """Return energy and power of each GPU since the last call, in the form of CodeCarbon's method."""
        return [self._measure(device, last_duration) for device in self._devices]

    def _measure(self, device: Any, duration: Any) -> dict[str, Any]:
        try:
            measured: dict[str, Any] | None = device.delta(duration)
        except Exception as error:  # noqa: BLE001  (any failure of a driver is a missing answer)
            device._fallback_seconds_since_counter += duration.seconds
            device._counter_error = repr(error)
            measured = None
        if measured is not None and self._answers(device, duration.seconds):
            self._unresponsive.pop(device.gpu_index, None)
            known = self._powers_w.setdefault(device.gpu_index, deque(maxlen=KNOWN_POWERS))
            if duration.seconds >= POWER_SECONDS or not known:
                known.append(device.power.W)
            return measured
        return self._estimate(device, duration)

    def _answers(self, device: Any, seconds: float) -> bool:
        if device._use_power_fallback:
            return device.energy_delta.kWh > 0 or not device._warned_power_failure
        # Power is the counter's growth; energy may be 0 while the counter catches up with an estimate.
        unchanged = device.power.W == 0 and (seconds >= COUNTER_SECONDS or device.gpu_index in self._unresponsive)
        return not unchanged or device._reports_zero_power_by_design()

    def _estimate(self, device: Any, duration: Any) -> dict[str, Any]:
        from codecarbon.core.units import Energy, Power

        known = self._powers_w.get(device.gpu_index)
        watts = max(known) if known else float(device._power_limit or 0.0)
        self._unresponsive[device.gpu_index] = LAST_POWER if known else DESIGN_POWER
        device.power = Power.from_watts(watts)
        device.energy_delta = Energy(watts * duration.seconds / JOULES_PER_KWH)
        device._fallback_energy_since_counter += device.energy_delta
        return {
            "name": device._gpu_name,
            "uuid": device._uuid,
            "gpu_index": device.gpu_index,
            "delta_energy_consumption": device.energy_delta,
            "power_usage": device.power,
        }

    def _device_method(self, device: Any) -> str:
        library = _GPU_LIBRARIES.get(type(device).__name__, "unknown")
        if device.gpu_index in self._unresponsive:
            return unresponsive_method(library, self._unresponsive[device.gpu_index])
        if not device._use_power_fallback:
            return f"{library} {ENERGY_COUNTER}"
        return f"{library} {UNREADABLE if device._warned_power_failure else SAMPLED_POWER}"


def install_gpu_reader(hardware: Sequence[Any], gpu_ids: Sequence[GpuId] | None) -> GpuEnergyReader:
    """Restrict CodeCarbon's hardware to the given GPUs, or else to the visible ones, and install their reader."""
    from codecarbon.core.gpu import AMDGPUDevice, NvidiaGPUDevice, pynvml

    mig_parent = partial(find_mig_parent, nvml=pynvml)
    parts = [part for part in hardware if type(part).__name__ == "GPU"]
    # CodeCarbon 3.3 can select GPUs, but finds none by UUID (it strips the G of "GPU-"), meters all of them where
    # CUDA_VISIBLE_DEVICES is empty, and takes an index as that of the bus.
    devices: list[Any] = [device for part in parts for device in part.devices.devices]
    amd = not any(isinstance(device, NvidiaGPUDevice) for device in devices)
    maker = AMDGPUDevice if amd else NvidiaGPUDevice
    gpus = [Gpu(one.gpu_index, str(one._uuid), str(one._gpu_name)) for one in devices if isinstance(one, maker)]
    if gpu_ids is not None:
        selection = select_gpus(gpu_ids, gpus, mig_parent=mig_parent)
    else:
        selection = select_visible_gpus(os.environ, gpus, mig_parent=mig_parent, amd=amd)
    for part in parts:
        # A failing device makes CodeCarbon drop the energy of all that it reads, so the others are not read.
        kept = [one for one in part.devices.devices if isinstance(one, maker) and one.gpu_index in selection.indices]
        part.devices.devices = kept
        part.devices.device_count = len(kept)
        part.gpu_ids = list(selection.indices)
        part._gpu_ids_resolved = True
    reader = GpuEnergyReader([device for part in parts for device in part.devices.devices], selection.notes)
    for part in parts:
        part.devices.get_delta = reader.get_delta
    return reader
