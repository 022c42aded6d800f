"""The `trace:FILE` source: replays recorded intensities, at their times or repeatedly at any speed."""

import math
from bisect import bisect_right
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count, pairwise
from pathlib import Path

from greencore.carbon.errors import InvalidSpec, NoReading
from greencore.carbon.series import EMISSION_FACTORS, EmissionFactors, IntensitySeries, Reading, Signal, check_window
from greencore.carbon.source import forecast_end
from greencore.carbon.specification import read_choice, read_options
from greencore.carbon.trace_file import read_trace
from greencore.clock import Clock, parse_utc, utc_now

OPTIONS = ("speed", "anchor", "emission_factors")
# Times have a resolution of 1 µs, which distorts readings shorter than a millisecond.
SHORTEST_READING = timedelta(milliseconds=1)
INSTANT = timedelta(microseconds=1)


class TraceSource:
    """Replays a trace, in wall time.

    Without an anchor the trace's times are used. With one, the trace's first row begins there (UTC), it runs at `speed`
    (above 0; trace time / wall time), and repeats without end in both directions. Its forecast is exact.
    `emission_factors` default to those of the file's column. Raises InvalidTrace where the file cannot be read,
    InvalidSpec where the speed makes readings shorter than 1 ms.
    """

    signal: Signal = "average"

    def __init__(
        self,
        file: Path,
        zone: str,
        *,
        speed: float,
        anchor: datetime | None,
        emission_factors: EmissionFactors | None,
        clock: Clock,
    ) -> None:
        if not zone:
            raise InvalidSpec("zone is empty: expected the name of a grid zone")
        self._rows = read_trace(file, zone)
        if emission_factors is not None:
            self._rows = tuple(replace(row, emission_factors=emission_factors) for row in self._rows)
        self.zone = zone
        self.emission_factors = self._rows[0].emission_factors
        self._file = file
        self._clock = clock
        self._origin = self._rows[0].start
        self._starts = [row.start - self._origin for row in self._rows]
        self._period = self._rows[-1].end - self._origin
        self._speed = speed
        self._anchor = anchor
        shortest = min(row.end - row.start for row in self._rows)
        if shortest / speed < SHORTEST_READING:
            raise InvalidSpec(
                f"the option speed={speed:g} of trace makes readings shorter than 1 ms: "
                f"expected at most {shortest / SHORTEST_READING:g}"
            )
        self._widest = max(later - earlier for earlier, later in pairwise([*self._starts, self._period]))

    def latest(self) -> Reading:
        """Return the current reading; in a gap of the trace, the one before it.

        Raises NoReading, with the trace's range, where the current time is outside a trace without an anchor.
        """
        now = self._clock()
        if self._anchor is None and not self._origin <= now < self._origin + self._period:
            ends = self._origin + self._period
            raise NoReading(
                f"{self._file} runs from {self._origin.isoformat()} to {ends.isoformat()}, "
                f"and it is {now.isoformat()}: give trace an anchor to replay it now"
            )
        # A row has begun within the widest spacing before now.
        window = IntensitySeries(self._between(now - self._widest / self._speed, now + INSTANT))
        reading = window.latest_at(now)
        if reading is None:
            raise NoReading(f"{self._file} has no reading at {now.isoformat()}")
        return reading

    def forecast(self, hours: float) -> IntensitySeries:
        """Return the trace from now on, for `hours` of wall time; raises ValueError where they are not above 0."""
        now = self._clock()
        return IntensitySeries(self._between(now, forecast_end(now, hours)))

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        """Return the readings that overlap `[start, end)`; raises ValueError on a naive time or end before start."""
        check_window(start, end)
        return IntensitySeries(self._between(start, end))

    def _between(self, start: datetime, end: datetime) -> list[Reading]:
        """Return the readings that overlap `[start, end)`, in wall time."""
        anchor = self._origin if self._anchor is None else self._anchor
        repeats = self._anchor is not None
        fetched_at = self._clock()
        cycle, offset = divmod((start - anchor) * self._speed, self._period)
        # `start` may be rounded by 1 µs to either side of a row's edge: begin one row early, drop what ended.
        begin = cycle * len(self._rows) + bisect_right(self._starts, offset) - 2
        readings: list[Reading] = []
        for index in count(begin if repeats else max(begin, 0)):
            cycle, place = divmod(index, len(self._rows))
            if cycle > 0 and not repeats:
                break
            row = self._rows[place]
            begins, ends = anchor + self._wall_time(cycle, row.start), anchor + self._wall_time(cycle, row.end)
            if begins >= end:
                break
            if ends > start:
                readings.append(replace(row, start=begins, end=ends, fetched_at=fetched_at))
        return readings

    def _wall_time(self, cycle: int, time: datetime) -> timedelta:
        return (cycle * self._period + (time - self._origin)) / self._speed


def open_trace(argument: str, zone: str, *, clock: Clock = utc_now) -> TraceSource:
    """Open `FILE` or `FILE?speed=480&anchor=2026-11-23T10:00:00Z`.

    An anchor without an offset is in UTC; a speed other than 1 needs an anchor. Raises InvalidSpec naming the option,
    or InvalidTrace.
    """
    name, _, query = argument.partition("?")
    if not name:
        raise InvalidSpec("trace names no file: expected trace:FILE")
    options = read_options("trace", query, OPTIONS)
    speed = _parse_speed(options["speed"]) if "speed" in options else 1.0
    anchor = _parse_anchor(options["anchor"]) if "anchor" in options else None
    if anchor is None and speed != 1.0:
        raise InvalidSpec(
            f"the option speed={options['speed']} of trace needs an anchor: "
            "the wall time at which the trace's first row begins"
        )
    factors: EmissionFactors | None = None
    if "emission_factors" in options:
        factors = read_choice("trace", options, "emission_factors", EMISSION_FACTORS, "lifecycle")
    return TraceSource(Path(name), zone, speed=speed, anchor=anchor, emission_factors=factors, clock=clock)


def _parse_speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not math.isfinite(speed) or speed <= 0:
        raise InvalidSpec(f"the option speed={text} of trace is not a speed: expected a number greater than 0")
    return speed


def _parse_anchor(text: str) -> datetime:
    try:
        return parse_utc(text)
    except ValueError:
        raise InvalidSpec(
            f"the option anchor={text} of trace is not a time: expected ISO 8601, such as 2026-11-23T10:00:00Z"
        ) from None
