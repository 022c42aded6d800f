"""Energy readings of the GPUs, with an estimate for each GPU that does not answer, deducted once it does."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from greencore.energy.methods import DESIGN_POWER, LAST_POWER

# A shorter interval may fall between two updates of a counter.
COUNTER_SECONDS = 1.0
# The power of a shorter interval is too inaccurate.
POWER_SECONDS = 0.5
# A counter that stops within an interval makes its power too low: the larger of the last two is used.
KNOWN_POWERS = 2
SECONDS_PER_HOUR = 3600.0


class GpuEnergyReader:
    """Replacement of CodeCarbon's `AllGPUDevices.get_delta`, which drops the energy of all GPUs where one fails.

    A GPU does not answer where reading it raises, where it gives neither energy nor power, or where its counter does
    not change. Its energy is then estimated from its last known power, or else from its power limit. CodeCarbon
    deducts the estimate from the counter's growth once the GPU answers again.
    """

    def __init__(self, devices: Sequence[Any]) -> None:
        self._devices = devices
        self._powers_w: dict[int, deque[float]] = {}
        self.unresponsive: dict[int, str] = {}
        """Basis of the estimate of each GPU that does not answer, by its index."""

    @property
    def power_limit_w(self) -> float:
        """Sum of the power limits of all GPUs, in W."""
        return sum(float(device._power_limit or 0.0) for device in self._devices)

    def last_kwh(self) -> list[float]:
        """Return the energy of each GPU in the last reading, in kWh."""
        return [float(device.energy_delta.kWh) for device in self._devices]

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
            self.unresponsive.pop(device.gpu_index, None)
            known = self._powers_w.setdefault(device.gpu_index, deque(maxlen=KNOWN_POWERS))
            if duration.seconds >= POWER_SECONDS or not known:
                known.append(device.power.W)
            return measured
        return self._estimate(device, duration)

    def _answers(self, device: Any, seconds: float) -> bool:
        if device._use_power_fallback:
            return device.energy_delta.kWh > 0 or not device._warned_power_failure
        # Power is the counter's growth; energy may be 0 while the counter catches up with an estimate.
        unchanged = device.power.W == 0 and (seconds >= COUNTER_SECONDS or device.gpu_index in self.unresponsive)
        return not unchanged or device._reports_zero_power_by_design()

    def _estimate(self, device: Any, duration: Any) -> dict[str, Any]:
        from codecarbon.core.units import Energy, Power

        known = self._powers_w.get(device.gpu_index)
        watts = max(known) if known else float(device._power_limit or 0.0)
        self.unresponsive[device.gpu_index] = LAST_POWER if known else DESIGN_POWER
        device.power = Power.from_watts(watts)
        device.energy_delta = Energy(watts * duration.seconds / SECONDS_PER_HOUR / 1000)
        device._fallback_energy_since_counter += device.energy_delta
        return {
            "name": device._gpu_name,
            "uuid": device._uuid,
            "gpu_index": device.gpu_index,
            "delta_energy_consumption": device.energy_delta,
            "power_usage": device.power,
        }
