"""Energy readings of the machine's components from CodeCarbon, with estimates where it does not answer."""

import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psutil

from greencore.energy.codecarbon.gpus import COUNTER_SECONDS, KNOWN_POWERS, POWER_SECONDS
from greencore.energy.codecarbon.tracker import CodeCarbonTracker, start_tracker
from greencore.energy.devices import GpuId, GpuNotFound
from greencore.energy.interval import JOULES_PER_KWH
from greencore.energy.methods import CONFIGURED, DESIGN_POWER, LAST_POWER, NONE, RAPL, unresponsive_method

log = logging.getLogger(__name__)

# The first import of CodeCarbon and its detection of meters take seconds, a measurement takes milliseconds.
OPEN_SECONDS = 60.0
READ_SECONDS = 10.0
# CodeCarbon's defaults for an unknown processor and for memory.
CPU_THREAD_POWER_W = 4.0
RAM_POWER_W_PER_GIB = 0.375

Result = TypeVar("Result")


class CallTimedOut(Exception):
    """A call of CodeCarbon exceeded its timeout, or an earlier call is still running."""


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

    name: str
    configured_w: float | None
    design_w: float
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
        self._cpu = _ComponentMeter("cpu", cpu_power_w, design_w=CPU_THREAD_POWER_W * (os.cpu_count() or 1))
        self._ram = _ComponentMeter("ram", ram_power_w, design_w=RAM_POWER_W_PER_GIB * memory_gib)
        self._gpu = _ComponentMeter("gpu", None, design_w=assumed_gpu_power_w)
        self._answer: Future[Any] | None = None
        self._tracker: CodeCarbonTracker | None = None
        self._estimated = False
        self._total_kwh: float | None = None

    @property
    def gpu_uuids(self) -> tuple[str, ...]:
        """UUIDs of the metered GPUs."""
        return () if self._tracker is None else self._tracker.gpus.uuids

    def gpu_shares(self) -> dict[str, float]:
        """Return each GPU's share of their energy in the last reading, by UUID; equal shares where that was 0."""
        if self._tracker is None or not self.gpu_uuids:
            return {}
        used = self._tracker.gpus.last_kwh()
        total = sum(used)
        shares = [kwh / total for kwh in used] if total else [1 / len(used)] * len(used)
        return dict(zip(self.gpu_uuids, shares, strict=True))

    @property
    def total_kwh(self) -> float | None:
        """CodeCarbon's total after closing, in kWh; None where absent or where energy was estimated without it."""
        return None if self._estimated else self._total_kwh

    def open(self, gpu_ids: Sequence[GpuId] | None) -> None:
        """Start CodeCarbon. Raises `GpuNotFound` where `gpu_ids` names a GPU that does not exist."""
        cpu_w, ram_w = self._cpu.configured_w, self._ram.configured_w
        try:
            self._tracker = self._call(
                lambda: start_tracker(cpu_w, ram_w, gpu_ids, samples=self._samples), seconds=OPEN_SECONDS
            )
        except GpuNotFound:
            raise
        except Exception as error:  # noqa: BLE001  (a job continues without its meter)
            log.warning("CodeCarbon could not be started, energy is estimated: %r", error)
            return
        self._cpu.design_w = self._tracker.cpu_design_power_w or self._cpu.design_w
        self._gpu.design_w = self._tracker.gpus.power_limit_w

    def read(self, since: float, *, last: bool = False) -> EnergyReading:
        """Return the energy of each component since the last reading, at `since` seconds of the monotonic clock.

        `last` closes CodeCarbon. A meter's errors are logged, not raised.
        """
        totals = self._totals(last=last)
        until = self._monotonic()
        seconds = max(0.0, until - since)
        return EnergyReading(
            until,
            cpu=self._read(self._cpu, totals, seconds),
            gpu=self._read(self._gpu, totals, seconds),
            ram=self._read(self._ram, totals, seconds),
        )

    def _call(self, work: Callable[[], Result], *, seconds: float) -> Result:
        """Return the result of `work`, made in a daemon thread since CodeCarbon may hang, or raise its error.

        Raises `CallTimedOut` after `seconds`, or at once, without starting `work`, where an earlier call still runs.
        """
        if self._answer is not None and not self._answer.done():
            raise CallTimedOut("an earlier call is still running")
        self._answer = answer = Future[Result]()

        def run() -> None:
            try:
                answer.set_result(work())
            except BaseException as error:  # noqa: BLE001  (raised in the caller's thread)
                answer.set_exception(error)

        thread = threading.Thread(target=run, name="energy-source", daemon=True)
        thread.start()
        # Not by joining the thread: once Ctrl-C interrupts that, Python 3.11 takes a running thread for ended.
        wait([answer], timeout=seconds)
        if not answer.done():
            raise CallTimedOut(f"no answer within {seconds:g} s")
        thread.join()  # it ends now: a process that is forked next inherits none
        return answer.result()

    def _totals(self, *, last: bool) -> dict[str, float] | None:
        if self._tracker is None:
            return None
        try:
            if last:
                self._tracker.stop_sampling()
                self._total_kwh = self._call(self._tracker.stop, seconds=READ_SECONDS)
            else:
                self._call(self._tracker.measure, seconds=READ_SECONDS)
            return self._tracker.totals_kwh()
        except CallTimedOut as error:
            # Each of CodeCarbon's samples, one a second, would hang in another thread.
            self._tracker.stop_sampling()
            log.warning("the energy meter does not answer, energy is estimated: %s", error)
        except Exception as error:  # noqa: BLE001  (a job continues without its meter)
            log.warning("the energy meter failed, energy is estimated: %r", error)
        return None

    def _read(self, part: _ComponentMeter, totals: dict[str, float] | None, seconds: float) -> ComponentEnergy:
        gpu = part.name == "gpu"
        metered_kwh = None if totals is None else part.metered(totals[part.name])
        if metered_kwh is None:
            kwh, basis = part.estimate(seconds)
            part.ahead_kwh += kwh
            self._estimated = True
            if basis == CONFIGURED:
                return ComponentEnergy(kwh, CONFIGURED)
            return ComponentEnergy(kwh, NONE if kwh == 0 and gpu else unresponsive_method("CodeCarbon", basis))
        assert self._tracker is not None
        method = CONFIGURED if part.configured_w is not None else self._tracker.method(part.name)
        skipped = method == RAPL and self._tracker.skipped_rapl()
        # An estimate from a power is never 0, and a processor's counter changes within a second.
        expected = not gpu and method != NONE and part.configured_w is None and seconds >= COUNTER_SECONDS
        if skipped or (expected and metered_kwh == 0):
            kwh, basis = part.estimate(seconds)
            # A file that can be read again counts from then on; a counter that stopped may catch up.
            part.ahead_kwh += 0.0 if skipped else kwh
            self._estimated = True
            meter = RAPL if method == RAPL else "CodeCarbon"
            return ComponentEnergy(max(kwh, metered_kwh), unresponsive_method(meter, basis))
        return ComponentEnergy(part.bill(metered_kwh, seconds), method)
