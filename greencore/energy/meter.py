"""Energy meter of training, in short intervals that are priced one by one.

CodeCarbon measures the energy; its emissions are not used, since it applies one intensity to all of it.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from greencore.clock import Clock, utc_now
from greencore.energy.devices import GpuId
from greencore.energy.interval import EnergyInterval
from greencore.energy.source import EnergySource
from greencore.energy.timeline import Timeline

LONGEST_INTERVAL_SECONDS = 60.0
# An interval is closed this much before its maximum length, because the thread may be late.
MARGIN_SECONDS = 1.0
# Period at which the wall clock is compared with the monotonic clock.
CLOCK_CHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class UnreportedPeriod:
    """Time whose energy was not reported yet: start `since` (UTC) and length in `seconds` of the monotonic clock."""

    since: datetime
    seconds: float


class EnergyMeter:
    """Energy meter of the machine and the job's GPUs; passes each closed interval to `on_interval` while it is open.

    Intervals are contiguous. One is closed every `interval_seconds` (in (0, 60]) by a thread of the meter, by
    `close_interval()`, and on leaving the context; they are passed on one at a time, in order. Where `on_interval`
    raises, its interval stays first in the queue and is passed on again with the next one, so it should accept an
    interval wholly or not at all; the next `close_interval()`, or leaving, raises an error of the meter's thread.

    The length of an interval is measured by the monotonic clock, which stops while a machine is suspended; an interval
    longer than 60 s, after a process was paused, is passed on in parts. Where the wall clock jumps, an interval ends
    within a second, and the next starts at the new time of day, or at the last end where the clock was set back.

    A meter that hangs, fails or stops does not end training: `greencore.energy.source.EnergySource` estimates the
    energy, and the interval's method says so.

    `cpu_power_w` and `ram_power_w`, where given, are taken as constant power instead of a measurement; without them
    the processor is read by RAPL, or estimated from its thermal design power, and the memory from its capacity. Only
    the GPUs in `gpu_ids` are metered (indices as in nvidia-smi, or UUIDs), by default those visible to the process
    (`greencore.energy.devices.select_visible_gpus`); `assumed_gpu_power_w` is their power where no meter can be
    opened. Open the meter in the process that trains: a fork of it measures nothing. It meters all of the machine's
    processors and memory, so the readings of several meters on one machine overlap.
    Raises ValueError where a setting is out of its range, or, on opening, where a GPU does not exist.
    """

    def __init__(
        self,
        on_interval: Callable[[EnergyInterval], None],
        *,
        interval_seconds: float = 30.0,
        cpu_power_w: float | None = None,
        ram_power_w: float | None = None,
        gpu_ids: Sequence[GpuId] | None = None,
        assumed_gpu_power_w: float = 0.0,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < interval_seconds <= LONGEST_INTERVAL_SECONDS:
            raise ValueError(
                f"interval_seconds is {interval_seconds}: expected more than 0 and at most {LONGEST_INTERVAL_SECONDS:g}"
            )
        for name, power in (("cpu_power_w", cpu_power_w), ("ram_power_w", ram_power_w)):
            if power is not None and (not math.isfinite(power) or power < 0):
                raise ValueError(f"{name} is {power}: expected a finite number of watts that is at least 0")
        self._on_interval = on_interval
        self._interval_seconds = min(interval_seconds, LONGEST_INTERVAL_SECONDS - MARGIN_SECONDS)
        self._source = EnergySource(
            cpu_power_w, ram_power_w, assumed_gpu_power_w=assumed_gpu_power_w, monotonic=monotonic
        )
        self._gpu_ids = gpu_ids
        self._clock, self._monotonic = clock, monotonic
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._close_regularly, name="energy-meter", daemon=True)
        self._process_id: int | None = None
        self._pending: deque[EnergyInterval] = deque()
        self._error: Exception | None = None

    @property
    def tracker_total_kwh(self) -> float | None:
        """CodeCarbon's total in kWh, a check on the sum of intervals; None until the meter closes.

        Configured power and the selection of GPUs are set in CodeCarbon, and its power usage effectiveness is 1, so
        the total covers the same components by the same methods: it differs only where an interval is missing. None
        also where a part of the energy was estimated without CodeCarbon.
        """
        return self._source.total_kwh

    @property
    def gpu_uuids(self) -> tuple[str, ...]:
        """UUIDs of the GPUs that an open meter meters."""
        return self._source.gpu_uuids

    def unreported_period(self) -> UnreportedPeriod:
        """Return the time whose energy was not reported yet; does not block, so any thread may call it."""
        since, since_seconds = self._reported_until
        return UnreportedPeriod(since, max(0.0, self._monotonic() - since_seconds))

    def __enter__(self) -> Self:
        if self._process_id is not None:
            raise RuntimeError("this EnergyMeter was opened before: create a new one")
        self._source.open(self._gpu_ids)
        self._process_id = os.getpid()
        self._timeline = Timeline(self._clock, self._monotonic)
        self._start, self._start_seconds = self._timeline.now()
        self._reported_until = self._start, self._start_seconds
        self._due = self._monotonic() + self._interval_seconds
        self._thread.start()
        return self

    def close_interval(self) -> EnergyInterval:
        """Close the running interval, report it and return it undivided; the next starts at the same instant.

        Raises an earlier error of the meter's thread, leaving the running interval open; the error of `on_interval`;
        RuntimeError where the meter is not open, or was opened in another process.
        """
        self._check_open()
        with self._lock:
            self._raise_deferred_error()
            interval = self._close()
            self._report_pending()
            return interval

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._check_open()
        self._closing.set()
        self._thread.join()
        try:
            with self._lock:
                self._close(last=True)
                self._report_pending()
                self._raise_deferred_error()
        except Exception as failure:
            if self._error is not None:
                failure.add_note(f"an earlier interval could not be reported: {self._error!r}")
            if error is None:
                raise
            # The error that ends the block takes precedence: the meter's failure is a note on it.
            error.add_note(f"the energy meter failed too: {failure!r}")

    def _check_open(self) -> None:
        if self._process_id is None or self._closing.is_set():
            raise RuntimeError("the EnergyMeter is not open: use it as a context manager")
        if os.getpid() != self._process_id:
            raise RuntimeError(
                f"the EnergyMeter was opened in process {self._process_id} and measures nothing "
                f"in {os.getpid()}: open it in the process that trains"
            )

    def _close_regularly(self) -> None:
        while not self._closing.wait(max(0.0, min(CLOCK_CHECK_SECONDS, self._due - self._monotonic()))):
            with self._lock:
                if self._monotonic() < self._due and not self._timeline.has_jumped():
                    continue
                try:
                    self._close()
                    self._report_pending()
                except Exception as error:  # noqa: BLE001  (kept, and raised in the caller's thread)
                    self._error = error if self._error is None else self._error
                    self._due = self._monotonic() + self._interval_seconds

    def _raise_deferred_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _close(self, *, last: bool = False) -> EnergyInterval:
        """Measure the energy since the last close and queue it as intervals to be reported."""
        reading = self._source.read(self._start_seconds, last=last)
        interval = EnergyInterval(
            start=self._start,
            end=max(self._start, self._timeline.at(reading.until)),
            cpu_kwh=reading.cpu.kwh,
            gpu_kwh=reading.gpu.kwh,
            ram_kwh=reading.ram.kwh,
            cpu_method=reading.cpu.method,
            gpu_method=reading.gpu.method,
            ram_method=reading.ram.method,
            monotonic_start=self._start_seconds,
        )
        self._pending.extend(interval.split(LONGEST_INTERVAL_SECONDS))
        self._timeline.follow_jump(reading.until)
        self._start, self._start_seconds = self._timeline.at(reading.until), reading.until
        self._due = self._monotonic() + self._interval_seconds
        return interval

    def _report_pending(self) -> None:
        while self._pending:
            self._on_interval(self._pending[0])
            self._pending.popleft()
            if self._pending:
                first = self._pending[0]
                assert first.monotonic_start is not None
                self._reported_until = first.start, first.monotonic_start
            else:
                self._reported_until = self._start, self._start_seconds
