"""The `trace:FILE` source: recorded intensities, replayed as they were or faster and round and round."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path
from urllib.parse import parse_qsl

from greencore.carbon.errors import InvalidSpec, NoReading
from greencore.carbon.options import read_choice
from greencore.carbon.series import EMISSION_FACTORS, EmissionFactors, IntensitySeries, Reading, Signal
from greencore.carbon.source import check_window, forecast_end
from greencore.carbon.trace_file import TraceRow, read_trace
from greencore.clock import Clock, utc_now

OPTIONS = ("speed", "anchor", "emission_factors")
# Times have a resolution of 1 µs: below a millisecond, readings would be distorted and in the end vanish.
SHORTEST_READING = timedelta(milliseconds=1)
INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class TraceSpec:
    """A trace file and how to replay it.

    `speed` (greater than 0) is how much faster than wall time the trace runs; `anchor` is the wall time, in
    UTC, at which its first row begins, or None where the trace's own times are meant. `emission_factors` are None where
    the file's column says what it counts.
    """

    file: Path
    speed: float = 1.0
    anchor: datetime | None = None
    emission_factors: EmissionFactors | None = None

    @classmethod
    def parse(cls, argument: str) -> "TraceSpec":
        """Reads `FILE`, `FILE?speed=480&anchor=2026-11-23T10:00:00Z`.

        An anchor without an offset is in UTC; a speed other than 1 needs an anchor. Raises InvalidSpec naming
        the option.
        """
        name, _, query = argument.partition("?")
        if not name:
            raise InvalidSpec("trace names no file: expected trace:FILE")
        options: dict[str, str] = {}
        # "+" stands for itself here, as in +00:00, and not for a space.
        for key, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
            if key not in OPTIONS:
                raise InvalidSpec(f"trace has no option {key!r}: expected {' or '.join(OPTIONS)}")
            if key in options:
                raise InvalidSpec(f"the option {key!r} of trace is given twice")
            options[key] = value
        speed = _speed(options["speed"]) if "speed" in options else 1.0
        anchor = _anchor(options["anchor"]) if "anchor" in options else None
        if anchor is None and speed != 1.0:
            raise InvalidSpec(
                f"the option speed={options['speed']} of trace needs an anchor: "
                "the wall time at which the trace's first row begins"
            )
        factors = None
        if "emission_factors" in options:
            factors = read_choice("trace", options, "emission_factors", EMISSION_FACTORS, "lifecycle")
        return cls(Path(name), speed, anchor, factors)


class TraceSource:
    """Replays a trace, in wall time.

    Without an anchor the trace's own times hold. With one, the trace begins there, runs `speed` times faster
    than it was recorded, and repeats for ever, backwards too. Its forecast is what will come: perfect. Raises
    InvalidTrace where the file cannot be read, InvalidSpec where a speed leaves readings under 1 ms.
    """

    def __init__(self, spec: TraceSpec, zone: str, *, clock: Clock = utc_now) -> None:
        if not zone:
            raise InvalidSpec("zone is empty: expected the name of a grid zone")
        trace = read_trace(spec.file)
        self._file = spec.file
        self._zone = zone
        self._clock = clock
        self._rows = trace.rows
        self._origin = trace.rows[0].start
        self._starts = [row.start - self._origin for row in trace.rows]
        self._period = trace.rows[-1].end - self._origin
        self._speed = spec.speed
        self._anchor = spec.anchor
        self._emission_factors = spec.emission_factors or trace.emission_factors
        self._source = f"trace ({trace.label})" if trace.label else "trace"
        shortest = min(row.end - row.start for row in trace.rows)
        if shortest / self._speed < SHORTEST_READING:
            raise InvalidSpec(
                f"the option speed={self._speed:g} of trace makes readings shorter than 1 ms: "
                f"expected at most {shortest / SHORTEST_READING:g}"
            )
        self._widest = max(later - earlier for earlier, later in pairwise([*self._starts, self._period]))

    @property
    def zone(self) -> str:
        """The zone that the trace stands for."""
        return self._zone

    @property
    def signal(self) -> Signal:
        """The grid's average."""
        return "average"

    @property
    def emission_factors(self) -> EmissionFactors:
        """As the specification says, else as the file's column does, else those of the life cycle."""
        return self._emission_factors

    def latest(self) -> Reading:
        """The reading that covers the present, else, in a gap of the trace, the one before it.

        Raises NoReading, with the trace's range, where the present lies outside a trace without an anchor.
        """
        now = self._clock()
        if self._anchor is None and not self._origin <= now < self._origin + self._period:
            ends = self._origin + self._period
            raise NoReading(
                f"{self._file} runs from {self._origin.isoformat()} to {ends.isoformat()}, "
                f"and it is {now.isoformat()}: give trace an anchor to replay it now"
            )
        # Within the widest spacing of rows before now, one has begun.
        window = IntensitySeries(self._between(now - self._widest / self._speed, now + INSTANT))
        reading = window.latest_at(now)
        if reading is None:
            raise NoReading(f"{self._file} has no reading at {now.isoformat()}")
        return reading

    def forecast(self, hours: float) -> IntensitySeries:
        """What the trace holds from now on, for `hours` of wall time; raises ValueError where not above 0."""
        now = self._clock()
        return IntensitySeries(self._between(now, forecast_end(now, hours)))

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        """Each reading that touches `[start, end)`; raises ValueError on a naive time or end before start."""
        check_window(start, end)
        return IntensitySeries(self._between(start, end))

    def _between(self, start: datetime, end: datetime) -> list[Reading]:
        """The readings that touch `[start, end)`, in wall time."""
        anchor = self._origin if self._anchor is None else self._anchor
        repeats = self._anchor is not None
        fetched_at = self._clock()
        cycle, offset = divmod((start - anchor) * self._speed, self._period)
        # Rounding to 1 µs may put `start` a hair to either side of a row's edge: begin one row early, drop
        # what ended.
        begin = cycle * len(self._rows) + bisect_right(self._starts, offset) - 2
        readings: list[Reading] = []
        for index in count(begin if repeats else max(begin, 0)):
            cycle, place = divmod(index, len(self._rows))
            if cycle > 0 and not repeats:
                break
            row = self._rows[place]
            begins, ends = anchor + self._wall(cycle, row.start), anchor + self._wall(cycle, row.end)
            if begins >= end:
                break
            if ends > start:
                readings.append(self._reading(row, begins, ends, fetched_at))
        return readings

    def _wall(self, cycle: int, time: datetime) -> timedelta:
        return (cycle * self._period + (time - self._origin)) / self._speed

    def _reading(self, row: TraceRow, start: datetime, end: datetime, fetched_at: datetime) -> Reading:
        return Reading(
            zone=self._zone,
            start=start,
            end=end,
            gco2e_per_kwh=row.gco2e_per_kwh,
            source=self._source,
            emission_factors=self._emission_factors,
            estimated=row.estimated,
            fetched_at=fetched_at,
        )


def open_trace(argument: str, zone: str, *, clock: Clock = utc_now) -> TraceSource:
    """Opens `FILE`, with options as `TraceSpec.parse` reads them; raises InvalidSpec or InvalidTrace."""
    return TraceSource(TraceSpec.parse(argument), zone, clock=clock)


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not math.isfinite(speed) or speed <= 0:
        raise InvalidSpec(f"the option speed={text} of trace is no speed: expected a number greater than 0")
    return speed


def _anchor(text: str) -> datetime:
    try:
        anchor = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidSpec(
            f"the option anchor={text} of trace is no time: expected ISO 8601, such as 2026-11-23T10:00:00Z"
        ) from None
    return anchor.replace(tzinfo=UTC) if anchor.utcoffset() is None else anchor.astimezone(UTC)
