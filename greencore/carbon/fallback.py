"""The fallback chain: finds the intensity of a time where no reading covers it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal, get_args

from greencore.carbon.errors import InvalidReading
from greencore.carbon.series import Basis, IntensitySeries, Reading, check_window
from greencore.carbon.static import StaticMean
from greencore.clock import HOUR

FallbackStep = Literal["fresh", "forecast", "stale", "yesterday", "last week", "static"]

FALLBACK_STEPS: tuple[FallbackStep, ...] = get_args(FallbackStep)

# The basis of every yearly mean.
STATIC_BASIS = Basis()

LOOKBACKS: dict[FallbackStep, timedelta] = {"yesterday": 24 * HOUR, "last week": 168 * HOUR}


@dataclass(frozen=True, slots=True)
class ResolvedIntensity:
    """A stored reading, unchanged so that its age is right, and the step of the chain that found it."""

    reading: Reading
    step: FallbackStep

    @property
    def estimated(self) -> bool:
        """True unless the reading is measured and covers the requested time."""
        return self.step != "fresh" or self.reading.estimated

    @property
    def source(self) -> str:
        """The reading's source, prefixed with a step other than fresh and static: "uk", "yesterday (uk)", "static"."""
        if self.step in ("fresh", "static"):
            return self.reading.source
        return f"{self.step} ({self.reading.source})"

    def to_labelled_reading(self) -> Reading:
        """Return the reading with this `source` and `estimated`, to be shown and stored."""
        return replace(self.reading, source=self.source, estimated=self.estimated)


@dataclass(frozen=True)
class IntensitySnapshot:
    """Readings and forecast of a zone around a time, from which past, present and future are resolved.

    Raises InvalidReading where one of them is of another zone or another basis.
    """

    zone: str
    basis: Basis
    readings: IntensitySeries
    forecast: IntensitySeries

    def __post_init__(self) -> None:
        for name, series in (("readings", self.readings), ("forecast", self.forecast)):
            for reading in series.readings[:1]:
                if reading.basis != self.basis:
                    raise InvalidReading(f"the {name} are {reading.basis}: expected {self.basis}, as the job is priced")
                if reading.zone != self.zone:
                    raise InvalidReading(f"the {name} are of the zone {reading.zone}: expected {self.zone}")

    def resolve_intensity(
        self, at: datetime, *, stale_limit: timedelta, static: StaticMean | None
    ) -> ResolvedIntensity | None:
        """Return the first intensity that the chain finds for `at` (aware), or None.

        The steps: "fresh", the reading that covers `at`; "forecast", the forecast for `at`; "stale", the newest reading
        if it ended at most `stale_limit` (at least 0) before; "yesterday" and "last week", the readings 24 and 168
        hours before; "static", the yearly mean, which is skipped on another basis, since no factor converts one into
        the other for every hour's mix. Raises ValueError where `at` is naive or `stale_limit` negative.
        """
        check_window(at, at)
        _check_stale_limit(stale_limit)
        return self._resolve(at, stale_limit, None if static is None else static.reading(self.zone, at))

    def series_with_fallback(
        self, start: datetime, end: datetime, *, stale_limit: timedelta, static: StaticMean | None
    ) -> IntensitySeries:
        """Return the readings that overlap `[start, end)`, uncut, with the gaps between them filled by the chain.

        Each gap is cut into pieces with one result of `resolve_intensity`; each piece gets a copy of it with the
        piece's times, marked as estimated, with a source that names the step. A piece without a result stays a gap.
        Raises as `resolve_intensity`, and ValueError where `end` is before `start`.
        """
        check_window(start, end)
        _check_stale_limit(stale_limit)
        mean = None if static is None else static.reading(self.zone, end)
        cuts = sorted({start, end, *(time for time in self._change_times(stale_limit) if start < time < end)})
        pieces = list[tuple[datetime, datetime, ResolvedIntensity]]()
        for begin, until in pairwise(cuts):
            # The result is constant between two cuts; the middle avoids the edges.
            known = self._resolve(begin + (until - begin) / 2, stale_limit, mean)
            if known is None or known.step == "fresh":
                continue
            if pieces and pieces[-1][1:] == (begin, known):
                begin = pieces.pop()[0]
            pieces.append((begin, until, known))
        copies = [replace(known.to_labelled_reading(), start=begin, end=until) for begin, until, known in pieces]
        return IntensitySeries([*self.readings.overlapping(start, end), *copies])

    def forecast_from(self, now: datetime) -> IntensitySeries:
        """Return the intensity from now on: the current reading, then the forecast."""
        in_force = self.readings.at(now)
        if in_force is None:
            return self.forecast
        later = (reading for reading in self.forecast if reading.end > in_force.end)
        return IntensitySeries(
            [in_force, *(replace(reading, start=max(reading.start, in_force.end)) for reading in later)]
        )

    def forecast_or_newest(self, now: datetime) -> IntensitySeries:
        """Return the forecast; without one, the newest reading, assumed to persist; else an empty series."""
        forecast, newest = self.forecast_from(now), self.readings.latest_at(now)
        return forecast if len(forecast) or newest is None else IntensitySeries([newest])

    def _resolve(self, at: datetime, stale_limit: timedelta, static: Reading | None) -> ResolvedIntensity | None:
        newest = self.readings.latest_at(at)
        if newest is not None and at < newest.end:
            return ResolvedIntensity(newest, "fresh")
        if (expected := self.forecast.at(at)) is not None:
            return ResolvedIntensity(expected, "forecast")
        if newest is not None and at - newest.end <= stale_limit:
            return ResolvedIntensity(newest, "stale")
        for step, before in LOOKBACKS.items():
            if (earlier := self.readings.at(at - before)) is not None:
                return ResolvedIntensity(earlier, step)
        if static is not None and static.basis == self.basis:
            return ResolvedIntensity(static, "static")
        return None

    def _change_times(self, stale_limit: timedelta) -> Iterator[datetime]:
        """Yield every time at which the chain's result may change."""
        for reading in self.readings:
            yield reading.end + stale_limit
            for time in (reading.start, reading.end):
                yield time
                yield from (time + after for after in LOOKBACKS.values())
        for reading in self.forecast:
            yield from (reading.start, reading.end)


def explain_missing_static(basis: Basis) -> str | None:
    """Explain why the chain has no yearly mean on a basis; None where it has one."""
    if basis == STATIC_BASIS:
        return None
    return f"no yearly mean is used: yearly means are {STATIC_BASIS}, and are not mixed with figures that are {basis}"


def _check_stale_limit(stale_limit: timedelta) -> None:
    if stale_limit < timedelta(0):
        raise ValueError(f"stale_limit is {stale_limit}: expected at least 0")
