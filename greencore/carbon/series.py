"""Carbon intensity over time: readings, series of them with time-weighted means, and the merging of readings."""

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal, get_args

from greencore.carbon.errors import InvalidReading, NoReading

Signal = Literal["average", "marginal"]

SIGNALS: tuple[Signal, ...] = get_args(Signal)

EmissionFactors = Literal["lifecycle", "direct"]

EMISSION_FACTORS: tuple[EmissionFactors, ...] = get_args(EmissionFactors)


@dataclass(frozen=True, slots=True)
class Basis:
    """What an intensity counts; only figures of one basis may be added or compared."""

    signal: Signal = "average"
    emission_factors: EmissionFactors = "lifecycle"

    def __str__(self) -> str:
        return f"{self.signal}, {'life cycle' if self.emission_factors == 'lifecycle' else self.emission_factors}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Carbon intensity of one zone's electricity during `[start, end)`.

    `gco2e_per_kwh` is finite and at least 0; all times are aware and in UTC; `start` is before `end`. `signal` is the
    grid's average or the marginal plant's intensity; `emission_factors` include building the plants and supplying the
    fuel ("lifecycle") or only combustion ("direct"); `estimated` values are modelled or forecast, others measured;
    `fetched_at` is the time of the request. Raises InvalidReading, naming the field, where a value is invalid.
    """

    zone: str
    start: datetime
    end: datetime
    gco2e_per_kwh: float
    source: str
    signal: Signal = "average"
    emission_factors: EmissionFactors = "lifecycle"
    estimated: bool = False
    fetched_at: datetime

    def __post_init__(self) -> None:
        if not self.zone:
            raise InvalidReading("zone is empty: expected the name of a grid zone")
        for name, time in (("start", self.start), ("end", self.end), ("fetched_at", self.fetched_at)):
            if time.utcoffset() != timedelta(0):
                raise InvalidReading(f"{name} is {time.isoformat()}: expected an aware time in UTC")
        if self.start >= self.end:
            raise InvalidReading(
                f"the reading runs from {self.start.isoformat()} to {self.end.isoformat()}: expected start before end"
            )
        if not math.isfinite(self.gco2e_per_kwh) or self.gco2e_per_kwh < 0:
            raise InvalidReading(f"gco2e_per_kwh is {self.gco2e_per_kwh}: expected a finite number that is at least 0")
        for name, value, known in (
            ("signal", self.signal, SIGNALS),
            ("emission_factors", self.emission_factors, EMISSION_FACTORS),
        ):
            if value not in known:
                raise InvalidReading(f"{name} is {value!r}: expected one of {', '.join(known)}")

    @property
    def basis(self) -> Basis:
        """Signal and emission factors."""
        return Basis(self.signal, self.emission_factors)

    def age_seconds(self, now: datetime) -> float:
        """Return the seconds from the start of the reading to `now`; at least 0."""
        return max(0.0, (now - self.start).total_seconds())


@dataclass(frozen=True, slots=True)
class WeightedIntensity:
    """Time-weighted mean intensity in gCO2e/kWh over an interval.

    `covered_share` in [0, 1] is the share of the interval that readings cover; `estimated` is true where it is below
    1, or where a used reading is estimated. `sources` are distinct, in the order of use.
    """

    gco2e_per_kwh: float
    covered_share: float
    estimated: bool
    sources: tuple[str, ...]


class IntensitySeries:
    """Readings of one zone and one basis, sorted by time, without overlaps; immutable.

    Gaps are allowed, and so is an empty series. Raises InvalidReading where zones, signals or emission factors are
    mixed, or where two readings overlap.
    """

    __slots__ = ("_ends", "_readings", "_starts")

    def __init__(self, readings: Iterable[Reading] = ()) -> None:
        self._readings = tuple(sorted(readings, key=lambda reading: reading.start))
        self._starts = [reading.start for reading in self._readings]
        self._ends = [reading.end for reading in self._readings]
        for name, values in (
            ("zones", {reading.zone for reading in self._readings}),
            ("signals", {reading.signal for reading in self._readings}),
            ("emission factors", {reading.emission_factors for reading in self._readings}),
        ):
            if len(values) > 1:
                raise InvalidReading(f"{name} {', '.join(sorted(values))} are mixed: expected one in a series")
        for earlier, later in pairwise(self._readings):
            if later.start < earlier.end:
                raise InvalidReading(
                    f"the reading from {later.start.isoformat()} begins before the one "
                    f"from {earlier.start.isoformat()} ends: expected no overlap"
                )

    def __len__(self) -> int:
        return len(self._readings)

    def __iter__(self) -> Iterator[Reading]:
        return iter(self._readings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IntensitySeries) and self._readings == other._readings

    def __hash__(self) -> int:
        return hash(self._readings)

    def __repr__(self) -> str:
        if not self._readings:
            return "IntensitySeries(empty)"
        first, last = self._readings[0], self._readings[-1]
        return (
            f"IntensitySeries({len(self)} readings, {first.zone}, {first.signal}, "
            f"{first.start.isoformat()} to {last.end.isoformat()})"
        )

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Readings, earliest first."""
        return self._readings

    def at(self, time: datetime) -> Reading | None:
        """Return the reading that covers `time` (start <= time < end), or None."""
        reading = self.latest_at(time)
        return reading if reading is not None and time < reading.end else None

    def latest_at(self, time: datetime) -> Reading | None:
        """Return the reading that covers `time`, else the most recent one before it, else None."""
        index = bisect_right(self._starts, time) - 1
        return self._readings[index] if index >= 0 else None

    def overlapping(self, start: datetime, end: datetime) -> tuple[Reading, ...]:
        """Return the readings that overlap `[start, end)`, uncut, earliest first."""
        first = bisect_right(self._ends, start)
        return self._readings[first : max(first, bisect_left(self._starts, end))]

    def mean(self, start: datetime, end: datetime) -> WeightedIntensity:
        """Return the time-weighted mean over `[start, end]` in gCO2e/kWh: ∫c(t)dt / (end − start).

        Uncovered time takes the nearest earlier reading, or the first one where there is none; an interval of no
        length the intensity of its instant by the same rule. Raises NoReading on an empty series, ValueError where
        `end` is before `start` or a time is naive.
        """
        if start == end:
            end = start + timedelta(microseconds=1)  # the shortest interval
        pieces = [(reading, until - begin, covers) for begin, until, reading, covers in self.pieces(start, end)]
        length = end - start
        covered = sum((piece for _, piece, covers in pieces if covers), timedelta(0))
        weighted = math.fsum(reading.gco2e_per_kwh * (piece / length) for reading, piece, _ in pieces)
        return WeightedIntensity(
            gco2e_per_kwh=weighted,
            covered_share=covered / length,
            estimated=covered < length or any(reading.estimated for reading, _, _ in pieces),
            sources=tuple(dict.fromkeys(reading.source for reading, _, _ in pieces)),
        )

    def pieces(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, Reading, bool]]:
        """Yield the pieces of `[start, end]`: start, end, the reading that prices it, and whether that covers it.

        Uncovered time takes the nearest earlier reading, or the first one where there is none. Raises NoReading on an
        empty series, ValueError where `end` is before `start` or a time is naive.
        """
        check_window(start, end)
        if not self._readings:
            raise NoReading(f"an empty series has no intensity from {start.isoformat()} to {end.isoformat()}")
        index = bisect_right(self._ends, start)
        cursor = start
        while cursor < end:
            following = self._readings[index] if index < len(self._readings) else None
            if following is not None and following.start <= cursor:
                until = min(following.end, end)
                yield cursor, until, following, True
                index += 1
            else:
                until = min(following.start, end) if following is not None else end
                yield cursor, until, self._readings[max(index - 1, 0)], False
            cursor = until


def merge_readings(readings: Iterable[Reading]) -> IntensitySeries:
    """Merge readings of one zone and signal, which may overlap, into a series.

    Of two at the same time a measured one replaces an estimate, then one fetched later, then one that began later (the
    finer resolution); the other is cut to the remaining time. Raises InvalidReading where zones or signals are mixed.
    """
    coming = sorted(readings, key=lambda reading: reading.start, reverse=True)
    edges = sorted({time for reading in coming for time in (reading.start, reading.end)})
    begun: list[tuple[tuple[bool, float, float], int, Reading]] = []
    pieces: list[tuple[Reading, datetime, datetime]] = []
    for start, end in pairwise(edges):
        while coming and coming[-1].start <= start:
            reading = coming.pop()
            rank = (reading.estimated, -reading.fetched_at.timestamp(), -reading.start.timestamp())
            heapq.heappush(begun, (rank, len(coming), reading))
        while begun and begun[0][2].end <= start:
            heapq.heappop(begun)
        if not begun:
            continue
        best = begun[0][2]
        if pieces and pieces[-1][0] is best and pieces[-1][2] == start:
            start = pieces.pop()[1]
        pieces.append((best, start, end))
    return IntensitySeries(replace(reading, start=start, end=end) for reading, start, end in pieces)


def check_window(start: datetime, end: datetime) -> None:
    """Raise ValueError where a time is naive or `end` is before `start`."""
    for name, time in (("start", start), ("end", end)):
        if time.utcoffset() is None:
            raise ValueError(f"{name} is {time.isoformat()}: expected an aware time")
    if end < start:
        raise ValueError(f"the window ends at {end.isoformat()}, before its start {start.isoformat()}")
