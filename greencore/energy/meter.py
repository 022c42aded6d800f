"""Meters the energy that training uses, in short intervals that can be priced one by one.

CodeCarbon measures; what it makes of the energy is left aside, since it prices all of it at one intensity.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from greencore.clock import Clock, utc_now
from greencore.energy.devices import GpuId, Selection
from greencore.energy.interval import EnergyInterval
from greencore.energy.methods import CONFIGURED, cpu_method, gpu_method, ram_method
from greencore.energy.tracker import open_tracker

LONGEST_INTERVAL_SECONDS = 60.0
TASK = "training"


class EnergyMeter:
    """Meters the machine and the job's own GPUs while it is open, and hands each closed interval to `on_interval`.

    Intervals follow one another without a gap. One is closed every `interval_seconds` (in (0, 60]) by a thread of the
    meter, by `cut()`, and on leaving the context; they are handed over one at a time and in order. Where
    `on_interval` raises, its interval stays first in line and is offered again with the next one, so it should take
    an interval wholly or not at all; the error of the meter's thread is raised by the next `cut()` or on leaving.

    `cpu_power_w` and `ram_power_w`, where given, are taken as drawn all the time instead of being measured; without
    them the processor is read by RAPL where there is one, or estimated from its thermal design power, and the memory
    from its capacity. Of the GPUs only those in `gpu_ids` are billed (indices as nvidia-smi counts them, or UUIDs), by
    default those that the process can see (`greencore.energy.devices.visible`). Open the meter in the process that
    trains (a fork of it measures nothing), and run one at a time on a machine: it bills all of its processors and
    memory. Raises ValueError where a setting is out of its range, or, on opening, where there is no such GPU.
    """

    def __init__(
        self,
        on_interval: Callable[[EnergyInterval], None],
        *,
        interval_seconds: float = 30.0,
        cpu_power_w: float | None = None,
        ram_power_w: float | None = None,
        gpu_ids: Sequence[GpuId] | None = None,
        clock: Clock = utc_now,
    ) -> None:
        if not 0 < interval_seconds <= LONGEST_INTERVAL_SECONDS:
            raise ValueError(
                f"interval_seconds is {interval_seconds}: expected more than 0 and at most {LONGEST_INTERVAL_SECONDS:g}"
            )
        for name, power in (("cpu_power_w", cpu_power_w), ("ram_power_w", ram_power_w)):
            if power is not None and (not math.isfinite(power) or power < 0):
                raise ValueError(f"{name} is {power}: expected a finite number of watts that is at least 0")
        self._on_interval = on_interval
        self._interval_seconds = interval_seconds
        self._cpu_power_w = cpu_power_w
        self._ram_power_w = ram_power_w
        self._gpu_ids = gpu_ids
        self._clock = clock
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._tracker: Any = None
        self._gpus = Selection(())
        self._process_id: int | None = None
        self._pending: deque[EnergyInterval] = deque()
        self._error: Exception | None = None
        self._billed = (0.0, 0.0, 0.0)
        self._tracker_total_kwh: float | None = None

    @property
    def tracker_total_kwh(self) -> float | None:
        """CodeCarbon's own total in kWh, as a check on the sum of intervals; None until the meter closes.

        Configured power and the choice of GPUs are set in CodeCarbon itself, and its power usage effectiveness is 1,
        so the total is of the same parts, found in the same way, as the intervals: it differs only where some of them
        went missing.
        """
        return self._tracker_total_kwh

    def __enter__(self) -> Self:
        if self._process_id is not None:
            raise RuntimeError("this EnergyMeter was opened before: create a new one")
        self._process_id = os.getpid()
        self._tracker, self._gpus = open_tracker(self._cpu_power_w, self._ram_power_w, self._gpu_ids)
        self._tracker.start_task(TASK)
        if self._tracker._active_task != TASK:
            raise RuntimeError("CodeCarbon did not start to measure: its log says why")
        self._start = self._clock()
        self._due = time.monotonic() + self._interval_seconds
        self._thread = threading.Thread(target=self._close_regularly, name="energy-meter", daemon=True)
        self._thread.start()
        return self

    def cut(self) -> EnergyInterval:
        """Closes the running interval, hands it over and returns it; the next begins at the same instant.

        Raises the error of an earlier hand-over by the meter's thread, leaving the running interval open; whatever
        `on_interval` raises now; RuntimeError where the meter is not open, or was opened in another process.
        """
        self._check_open()
        with self._lock:
            self._raise_kept()
            interval = self._close()
            self._hand_over()
            return interval

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._check_open()
        self._closing.set()
        assert self._thread is not None
        self._thread.join()
        try:
            with self._lock:
                self._close(last=True)
                self._hand_over()
                self._raise_kept()
        except Exception as failure:
            if self._error is not None:
                failure.add_note(f"an earlier interval could not be handed over: {self._error!r}")
            if error is None:
                raise
            # The error that ends the block is the one to see: a failure of the meter goes along with it.
            error.add_note(f"the energy meter failed, too: {failure!r}")
        finally:
            self._tracker = None

    def _check_open(self) -> None:
        if self._tracker is None:
            raise RuntimeError("the EnergyMeter is not open: use it as a context manager")
        if os.getpid() != self._process_id:
            raise RuntimeError(
                f"the EnergyMeter was opened in process {self._process_id} and measures nothing "
                f"in {os.getpid()}: open it in the process that trains"
            )

    def _close_regularly(self) -> None:
        while not self._closing.wait(max(0.0, self._due - time.monotonic())):
            with self._lock:
                if time.monotonic() < self._due:
                    continue
                try:
                    self._close()
                    self._hand_over()
                except Exception as error:  # noqa: BLE001  (kept, and raised where the caller can see it)
                    self._error = error if self._error is None else self._error
                    self._due = time.monotonic() + self._interval_seconds

    def _raise_kept(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _close(self, *, last: bool = False) -> EnergyInterval:
        """Measures, and queues what was used since the last close as an interval, for its hand-over."""
        if last:
            # CodeCarbon's sampling thread may restart itself while it is being stopped, and would then run for ever.
            self._tracker._scheduler_monitor_power.start = lambda **_: None
            # It measures once more before it ends the task.
            self._tracker_total_kwh = self._tracker.stop_task().energy_consumed
        else:
            # start_task and stop_task at every close would leave out what is used between the two; one task
            # stays open instead, and this is how CodeCarbon itself measures within it.
            self._tracker._measure_power_and_energy()
        end = max(self._start, self._clock())
        totals = (
            self._tracker._total_cpu_energy.kWh,
            self._tracker._total_gpu_energy.kWh,
            self._tracker._total_ram_energy.kWh,
        )
        cpu_kwh, gpu_kwh, ram_kwh = (total - billed for total, billed in zip(totals, self._billed, strict=True))
        hardware = self._tracker._hardware
        interval = EnergyInterval(
            start=self._start,
            end=end,
            cpu_kwh=cpu_kwh,
            gpu_kwh=gpu_kwh,
            ram_kwh=ram_kwh,
            cpu_method=CONFIGURED if self._cpu_power_w is not None else cpu_method(hardware),
            gpu_method=gpu_method(hardware, self._gpus.notes),
            ram_method=CONFIGURED if self._ram_power_w is not None else ram_method(hardware),
        )
        self._pending.append(interval)
        self._billed = totals
        self._start = end
        self._due = time.monotonic() + self._interval_seconds
        return interval

    def _hand_over(self) -> None:
        while self._pending:
            self._on_interval(self._pending[0])
            self._pending.popleft()
