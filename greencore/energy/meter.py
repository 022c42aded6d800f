"""Meters the energy that training uses, in short intervals that can be priced one by one.

CodeCarbon measures; what it makes of the energy is left aside, since it prices all of it at one intensity.
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
# An interval is closed so much earlier than it has to be: its thread may be late, and an interval is not.
MARGIN_SECONDS = 1.0
# How often the wall clock is compared with the monotonic one.
CLOCK_CHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class UnreportedPeriod:
    """Time of which no energy was handed over yet: from `since` (UTC) on, `seconds` by the monotonic clock."""

    since: datetime
    seconds: float


class EnergyMeter:
    """Meters the machine and the job's own GPUs while it is open, and hands each closed interval to `on_interval`.

    Intervals follow one another without a gap. One is closed every `interval_seconds` (in (0, 60]) by a thread of the
    meter, by `close_interval()`, and on leaving the context; they are handed over one at a time and in order. Where
    `on_interval` raises, its interval stays first in line and is offered again with the next one, so it should take
    an interval wholly or not at all; the error of the meter's thread is raised by the next `close_interval()` or on
    leaving.

    How long an interval is goes by the monotonic clock, which stands still while a machine is suspended; one that a
    process that stood still made longer than 60 s is handed over in parts. Where the wall clock leaps, an interval ends
    within a second, and the next begins at the new time of day, or, where the clock was set back, where the last ended.

    A meter that hangs, fails or stands still ends no training: `greencore.energy.source.EnergySource` estimates, and
    the interval's method says so.

    `cpu_power_w` and `ram_power_w`, where given, are taken as drawn all the time instead of being measured; without
    them the processor is read by RAPL where there is one, or estimated from its thermal design power, and the memory
    from its capacity. Of the GPUs only those in `gpu_ids` are billed (indices as nvidia-smi counts them, or UUIDs), by
    default those that the process can see (`greencore.energy.devices.select_visible_gpus`); `assumed_gpu_power_w`
    is what they draw where no meter can be opened. Open the meter in the process that trains (a fork of it
    measures nothing). It bills all of the machine's processors and memory: what several on one machine meter has to be
    shared out among them.
    Raises ValueError where a setting is out of its range, or, on opening, where there is no such GPU.
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
        self._powers = cpu_power_w, ram_power_w
        self._gpu_ids = gpu_ids
        self._assumed_gpu_power_w = assumed_gpu_power_w
        self._clock, self._monotonic = clock, monotonic
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._source: EnergySource | None = None
        self._process_id: int | None = None
        self._pending: deque[EnergyInterval] = deque()
        self._error: Exception | None = None
        self._tracker_total_kwh: float | None = None

    @property
    def tracker_total_kwh(self) -> float | None:
        """CodeCarbon's own total in kWh, as a check on the sum of intervals; None until the meter closes.

        Configured power and the choice of GPUs are set in CodeCarbon itself, and its power usage effectiveness is 1,
        so the total is of the same parts, found in the same way, as the intervals: it differs only where some of them
        went missing. None, too, where a part of the energy had to be estimated without CodeCarbon.
        """
        return self._tracker_total_kwh

    @property
    def gpu_uuids(self) -> tuple[str, ...]:
        """The UUIDs of the GPUs that an open meter bills."""
        assert self._source is not None
        return self._source.gpu_uuids

    def unreported_period(self) -> UnreportedPeriod:
        """The time whose energy was not handed over yet; it waits for nothing, so that any thread may ask."""
        since, since_seconds = self._handed_over_to
        return UnreportedPeriod(since, max(0.0, self._monotonic() - since_seconds))

    def __enter__(self) -> Self:
        if self._process_id is not None:
            raise RuntimeError("this EnergyMeter was opened before: create a new one")
        self._process_id = os.getpid()
        cpu_power_w, ram_power_w = self._powers
        source = EnergySource(
            cpu_power_w, ram_power_w, assumed_gpu_power_w=self._assumed_gpu_power_w, monotonic=self._monotonic
        )
        source.open(self._gpu_ids)
        self._source = source
        self._timeline = Timeline(self._clock, self._monotonic)
        self._start, self._start_seconds = self._timeline.now()
        self._handed_over_to = self._start, self._start_seconds
        self._due = self._monotonic() + self._interval_seconds
        self._thread = threading.Thread(target=self._close_regularly, name="energy-meter", daemon=True)
        self._thread.start()
        return self

    def close_interval(self) -> EnergyInterval:
        """Closes the running interval, hands it over and returns it as a whole; the next begins at the same instant.

        Raises the error of an earlier hand-over by the meter's thread, leaving the running interval open; whatever
        `on_interval` raises now; RuntimeError where the meter is not open, or was opened in another process.
        """
        self._check_open()
        with self._lock:
            self._raise_deferred_error()
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
                self._raise_deferred_error()
        except Exception as failure:
            if self._error is not None:
                failure.add_note(f"an earlier interval could not be handed over: {self._error!r}")
            if error is None:
                raise
            # The error that ends the block is the one to see: a failure of the meter goes along with it.
            error.add_note(f"the energy meter failed, too: {failure!r}")
        finally:
            self._source = None

    def _check_open(self) -> None:
        if self._source is None:
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
                    self._hand_over()
                except Exception as error:  # noqa: BLE001  (kept, and raised where the caller can see it)
                    self._error = error if self._error is None else self._error
                    self._due = self._monotonic() + self._interval_seconds

    def _raise_deferred_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _close(self, *, last: bool = False) -> EnergyInterval:
        """Measures, and queues what was used since the last close as intervals, for their hand-over."""
        assert self._source is not None
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
        if last:
            self._tracker_total_kwh = self._source.total_kwh
        return interval

    def _hand_over(self) -> None:
        while self._pending:
            self._on_interval(self._pending[0])
            self._pending.popleft()
            if self._pending:
                first = self._pending[0]
                assert first.monotonic_start is not None
                self._handed_over_to = first.start, first.monotonic_start
            else:
                self._handed_over_to = self._start, self._start_seconds
