"""The fallback chain: finds the intensity of a time where no reading covers it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal, get_args

from greencore.carbon.errors import InvalidReading
from greencore.carbon.series import Basis, EmissionFactors, IntensitySeries, Reading, Signal, check_window
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


def resolve_with_fallback(
    at: datetime,
    *,
    readings: IntensitySeries,
    forecast: IntensitySeries,
    static: Reading | None,
    stale_limit: timedelta,
    signal: Signal,
    emission_factors: EmissionFactors = "lifecycle",
) -> ResolvedIntensity | None:
    """Return the first intensity that the chain finds for `at` (aware), or None.

    The steps: "fresh", the reading that covers `at`; "forecast", the forecast for `at`; "stale", the newest reading if
    it ended at most `stale_limit` (at least 0) before; "yesterday" and "last week", the readings 24 and 168 hours
    before; "static", the yearly mean. A static reading of another basis (`signal`, `emission_factors`) is skipped,
    since no factor converts one into the other for every hour's mix. Raises InvalidReading where `readings` or
    `forecast` has another basis, or their zones differ; ValueError where `at` is naive or `stale_limit` negative.
    """
    basis = Basis(signal, emission_factors)
    _check_inputs(readings, forecast, stale_limit, basis)
    check_window(at, at)
    newest = readings.latest_at(at)
    if newest is not None and at < newest.end:
        return ResolvedIntensity(newest, "fresh")
    if (expected := forecast.at(at)) is not None:
        return ResolvedIntensity(expected, "forecast")
    if newest is not None and at - newest.end <= stale_limit:
        return ResolvedIntensity(newest, "stale")
    for step, before in LOOKBACKS.items():
        if (earlier := readings.at(at - before)) is not None:
            return ResolvedIntensity(earlier, step)
    if static is not None and static.basis == basis:
        return ResolvedIntensity(static, "static")
    return None


def explain_missing_static(basis: Basis) -> str | None:
    """Explain why the chain has no yearly mean on a basis; None where it has one."""
    if basis == STATIC_BASIS:
        return None
    return f"no yearly mean is used: yearly means are {STATIC_BASIS}, and are not mixed with figures that are {basis}"


def fill_with_fallback(
    start: datetime,
    end: datetime,
    *,
    readings: IntensitySeries,
    forecast: IntensitySeries,
    static: Reading | None,
    stale_limit: timedelta,
    signal: Signal,
    emission_factors: EmissionFactors = "lifecycle",
) -> IntensitySeries:
    """Return the readings that overlap `[start, end)`, uncut, with the gaps between them filled by the chain.

    Each gap is cut into pieces with one result of `resolve_with_fallback`; each piece gets a copy of it with the
    piece's times, marked as estimated, with a source that names the step. A piece without a result stays a gap. Raises
    as `resolve_with_fallback`, and ValueError where `end` is before `start`.
    """
    _check_inputs(readings, forecast, stale_limit, Basis(signal, emission_factors))
    check_window(start, end)
    cuts = sorted(
        {start, end, *(time for time in _change_times(readings, forecast, stale_limit) if start < time < end)}
    )
    pieces = list[tuple[datetime, datetime, ResolvedIntensity]]()
    for begin, until in pairwise(cuts):
        # The result is constant between two cuts; the middle avoids the edges.
        known = resolve_with_fallback(
            begin + (until - begin) / 2,
            readings=readings,
            forecast=forecast,
            static=static,
            stale_limit=stale_limit,
            signal=signal,
            emission_factors=emission_factors,
        )
        if known is None or known.step == "fresh":
            continue
        if pieces and pieces[-1][1:] == (begin, known):
            begin = pieces.pop()[0]
        pieces.append((begin, until, known))
    # A yearly mean may have the name of the zone's country.
    zone = next((reading.zone for series in (readings, forecast) for reading in series), None)
    copies = [
        replace(known.to_labelled_reading(), start=begin, end=until, zone=zone or known.reading.zone)
        for begin, until, known in pieces
    ]
    return IntensitySeries([*readings.overlapping(start, end), *copies])


def _change_times(readings: IntensitySeries, forecast: IntensitySeries, stale_limit: timedelta) -> Iterator[datetime]:
    """Yield every time at which the chain's result may change."""
    for reading in readings:
        yield reading.end + stale_limit
        for time in (reading.start, reading.end):
            yield time
            yield from (time + after for after in LOOKBACKS.values())
    for reading in forecast:
        yield from (reading.start, reading.end)


def _check_inputs(readings: IntensitySeries, forecast: IntensitySeries, stale_limit: timedelta, basis: Basis) -> None:
    if stale_limit < timedelta(0):
        raise ValueError(f"stale_limit is {stale_limit}: expected at least 0")
    zones = dict[str, str]()
    for name, series in (("readings", readings), ("forecast", forecast)):
        for reading in series.readings[:1]:
            if reading.signal != basis.signal:
                raise InvalidReading(f"the {name} are {reading.signal}: expected {basis.signal}, as the job is priced")
            if reading.emission_factors != basis.emission_factors:
                raise InvalidReading(f"the {name} are {reading.basis}: expected {basis}, as the job is priced")
            zones[reading.zone] = name
    if len(zones) > 1:
        raise InvalidReading(f"zones {', '.join(sorted(zones))} are mixed: expected readings and forecast of one zone")
