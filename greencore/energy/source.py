"""Energy readings of the machine's components from CodeCarbon, with estimates where it does not answer."""

import logging
import math
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from greencore.energy.caller import CallTimedOut, TimeoutExecutor
from greencore.energy.devices import GpuId, GpuNotFound
from greencore.energy.gpu_guard import KNOWN_POWERS, POWER_SECONDS
from greencore.energy.methods import (
    CONFIGURED,
    DESIGN_POWER,
    LAST_POWER,
    NONE,
    RAPL,
    cpu_method,
    gpu_method,
    ram_method,
    unresponsive_method,
)
from greencore.energy.tracker import TrackerHandle, open_tracker

log = logging.getLogger(__name__)

TASK = "training"
# The first import of CodeCarbon and its detection of meters take seconds, a measurement takes milliseconds.
OPEN_SECONDS = 60.0
READ_SECONDS = 10.0
# RAPL counters are updated about every millisecond.
COUNTER_SECONDS = 1.0
JOULES_PER_KWH = 3.6e6
# CodeCarbon's defaults for an unknown processor and for memory.
CPU_THREAD_POWER_W = 4.0
RAM_POWER_W_PER_GIB = 0.375


@dataclass(frozen=True, slots=True)
class ComponentEnergy:
    """Energy of a component in kWh, and its measurement method."""

    kwh: float
    method: str


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """Energy of each component since the last reading, up to `until` in seconds of the monotonic clock."""

    until: float
    cpu: ComponentEnergy
    gpu: ComponentEnergy
    ram: ComponentEnergy


@dataclass
class _ComponentMeter:
    """State of a component: its last known powers, CodeCarbon's last total, and energy estimated ahead of the meter."""

    configured_w: float | None = None
    design_w: float = 0.0
    billed_kwh: float = 0.0
    ahead_kwh: float = 0.0
    powers_w: deque[float] = field(default_factory=lambda: deque(maxlen=KNOWN_POWERS))

    def metered(self, total_kwh: float | None) -> float | None:
        """Return the growth of CodeCarbon's total; None where the total is absent, not finite or has decreased."""
        if total_kwh is None or not math.isfinite(total_kwh):
            return None
        grown = total_kwh - self.billed_kwh
        self.billed_kwh = total_kwh
        return grown if grown >= 0 else None

    def bill(self, metered_kwh: float, seconds: float) -> float:
        """Return the metered energy less what was estimated before."""
        paid = min(self.ahead_kwh, metered_kwh)
        self.ahead_kwh -= paid
        if paid == 0 and seconds >= POWER_SECONDS:
            self.powers_w.append(metered_kwh * JOULES_PER_KWH / seconds)
        return metered_kwh - paid

    def estimate(self, seconds: float) -> tuple[float, str]:
        """Return the energy by the last known power, or else by the design power, and that basis."""
        if self.configured_w is not None:
            return self.configured_w * seconds / JOULES_PER_KWH, CONFIGURED
        if self.powers_w:
            return max(self.powers_w) * seconds / JOULES_PER_KWH, LAST_POWER
        return self.design_w * seconds / JOULES_PER_KWH, DESIGN_POWER


class EnergySource:
    """CodeCarbon with timeouts: where a meter hangs, fails or stops, energy is estimated and the job continues.

    A component whose meter does not answer is estimated by its last known power, or else by its design power, and its
    method says so. Where the meter answers again and its counter has advanced, the estimate is deducted from it.
    `assumed_gpu_power_w` is the design power of the GPUs where CodeCarbon cannot be opened. CodeCarbon samples power
    once a second in a thread unless `samples` is False: then each reading is the mean load, or one sample.
    """

    def __init__(
        self,
        cpu_power_w: float | None,
        ram_power_w: float | None,
        *,
        assumed_gpu_power_w: float,
        monotonic: Callable[[], float],
        samples: bool = True,
    ) -> None:
        self._monotonic, self._samples = monotonic, samples
        memory_gib = psutil.virtual_memory().total / 2**30
        self._cpu = _ComponentMeter(configured_w=cpu_power_w, design_w=CPU_THREAD_POWER_W * (os.cpu_count() or 1))
        self._ram = _ComponentMeter(configured_w=ram_power_w, design_w=RAM_POWER_W_PER_GIB * memory_gib)
        self._gpu = _ComponentMeter(design_w=assumed_gpu_power_w)
        self._executor = TimeoutExecutor("energy-source")
        self._opened: TrackerHandle | None = None
        self._estimated = False
        self._total_kwh: float | None = None

    @property
    def gpu_uuids(self) -> tuple[str, ...]:
        """UUIDs of the metered GPUs."""
        return () if self._opened is None else self._opened.gpu_uuids

    def gpu_shares(self) -> dict[str, float]:
        """Return each GPU's share of their energy in the last reading, by UUID; equal shares where that was 0."""
        if self._opened is None or not self._opened.gpu_uuids:
            return {}
        used = self._opened.gpu_reader.last_kwh()
        total = sum(used)
        shares = [kwh / total for kwh in used] if total else [1 / len(used)] * len(used)
        return dict(zip(self._opened.gpu_uuids, shares, strict=True))

    @property
    def total_kwh(self) -> float | None:
        """CodeCarbon's total after closing, in kWh; None where absent or where energy was estimated without it."""
        return None if self._estimated else self._total_kwh

    def open(self, gpu_ids: Sequence[GpuId] | None) -> None:
        """Start CodeCarbon. Raises `GpuNotFound` where `gpu_ids` names a GPU that does not exist."""
        cpu_w, ram_w = self._cpu.configured_w, self._ram.configured_w
        try:
            self._opened = self._executor.call(
                lambda: _start(cpu_w, ram_w, gpu_ids, samples=self._samples), seconds=OPEN_SECONDS
            )
        except GpuNotFound:
            self._executor.close()
            raise
        except Exception as error:  # noqa: BLE001  (a job continues without its meter)
            log.warning("CodeCarbon could not be started, energy is estimated: %r", error)
            return
        self._cpu.design_w = _design_power(self._opened.tracker._hardware) or self._cpu.design_w
        self._gpu.design_w = self._opened.gpu_reader.power_limit_w

    def read(self, since: float, *, last: bool = False) -> EnergyReading:
        """Return the energy of each component since the last reading, at `since` seconds of the monotonic clock.

        `last` closes CodeCarbon. A meter's errors are logged, not raised.
        """
        totals = self._totals(last=last)
        until = self._monotonic()
        seconds = max(0.0, until - since)
        reading = EnergyReading(
            until,
            cpu=self._read(self._cpu, "cpu", totals, seconds),
            gpu=self._read(self._gpu, "gpu", totals, seconds),
            ram=self._read(self._ram, "ram", totals, seconds),
        )
        if last:
            self._executor.close()
        return reading

    def _totals(self, *, last: bool) -> dict[str, float] | None:
        if self._opened is None:
            return None
        opened = self._opened
        measure = (lambda: self._stop(opened)) if last else opened.tracker._measure_power_and_energy
        try:
            if last:
                _stop_sampling(opened.tracker)
            self._executor.call(measure, seconds=READ_SECONDS)
            return {part: getattr(opened.tracker, f"_total_{part}_energy").kWh for part in ("cpu", "gpu", "ram")}
        except CallTimedOut as error:
            # Each of CodeCarbon's samples, one a second, would hang in another thread.
            _stop_sampling(opened.tracker)
            log.warning("the energy meter does not answer, energy is estimated: %s", error)
        except Exception as error:  # noqa: BLE001  (a job continues without its meter)
            log.warning("the energy meter failed, energy is estimated: %r", error)
        return None

    def _stop(self, opened: TrackerHandle) -> None:
        # It measures once more before it ends the task.
        ended = opened.tracker.stop_task()
        if ended is None:
            raise RuntimeError("CodeCarbon has no running task and measured nothing")
        self._total_kwh = ended.energy_consumed

    def _read(
        self, part: _ComponentMeter, name: str, totals: dict[str, float] | None, seconds: float
    ) -> ComponentEnergy:
        metered_kwh = None if totals is None else part.metered(totals[name])
        if metered_kwh is None:
            kwh, basis = part.estimate(seconds)
            part.ahead_kwh += kwh
            self._estimated = True
            if basis == CONFIGURED:
                return ComponentEnergy(kwh, CONFIGURED)
            return ComponentEnergy(
                kwh, NONE if kwh == 0 and name == "gpu" else unresponsive_method("CodeCarbon", basis)
            )
        method = self._method(name)
        skipped = method == RAPL and self._rapl_skipped()
        # An estimate from a power is never 0, and a processor's counter changes within a second.
        expected = name != "gpu" and method != NONE and part.configured_w is None and seconds >= COUNTER_SECONDS
        if skipped or (expected and metered_kwh == 0):
            kwh, basis = part.estimate(seconds)
            # A file that can be read again counts from then on; a counter that stopped may catch up.
            part.ahead_kwh += 0.0 if skipped else kwh
            self._estimated = True
            return ComponentEnergy(
                max(kwh, metered_kwh), unresponsive_method(RAPL if method == RAPL else "CodeCarbon", basis)
            )
        return ComponentEnergy(part.bill(metered_kwh, seconds), method)

    def _method(self, name: str) -> str:
        assert self._opened is not None
        hardware = self._opened.tracker._hardware
        if name == "cpu":
            return CONFIGURED if self._cpu.configured_w is not None else cpu_method(hardware)
        if name == "ram":
            return CONFIGURED if self._ram.configured_w is not None else ram_method(hardware)
        return gpu_method(hardware, self._opened.gpus.notes, self._opened.gpu_reader.unresponsive)

    def _rapl_skipped(self) -> bool:
        """Return whether a RAPL counter could not be read at the start or end of an interval."""
        assert self._opened is not None
        processors = [part for part in self._opened.tracker._hardware if type(part).__name__ == "CPU"]
        files = [file for part in processors for file in part._intel_interface._rapl_files]
        return not files or any(file.sample_skipped for file in files)


def _start(
    cpu_power_w: float | None, ram_power_w: float | None, gpu_ids: Sequence[GpuId] | None, *, samples: bool
) -> TrackerHandle:
    opened = open_tracker(cpu_power_w, ram_power_w, gpu_ids)
    if not samples:
        _stop_sampling(opened.tracker)
    opened.tracker.start_task(TASK)
    if opened.tracker._active_task != TASK:
        raise RuntimeError("CodeCarbon did not start to measure: see its log")
    return opened


def _stop_sampling(tracker: Any) -> None:
    # CodeCarbon's sampling thread may restart itself while it is stopped, and would then never end.
    tracker._scheduler_monitor_power.start = lambda **_: None
    tracker._scheduler_monitor_power.stop()


def _design_power(hardware: list[Any]) -> float:
    """Return the processor's design power by CodeCarbon, in W; 0 where unknown."""
    return float(next((part._tdp or 0.0 for part in hardware if type(part).__name__ == "CPU"), 0.0))
