"""What to take for the intensity of a time: a reading that covers it, else the best of what else is known."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal

from greencore.carbon.errors import InvalidReading
from greencore.carbon.series import Basis, EmissionFactors, IntensitySeries, Reading, Signal
from greencore.carbon.source import check_window

FallbackStep = Literal["fresh", "forecast", "stale", "yesterday", "last week", "static"]

FALLBACK_STEPS: tuple[FallbackStep, ...] = ("fresh", "forecast", "stale", "yesterday", "last week", "static")

# What every yearly mean counts.
STATIC_BASIS = Basis()

LOOKBACKS: dict[FallbackStep, timedelta] = {"yesterday": timedelta(hours=24), "last week": timedelta(hours=168)}


@dataclass(frozen=True, slots=True)
class ResolvedIntensity:
    """A stored reading, unchanged (so that its age is true), and the step of the chain that found it."""

    reading: Reading
    step: FallbackStep

    @property
    def estimated(self) -> bool:
        """True unless the reading covers the time that was asked about and is itself measured."""
        return self.step != "fresh" or self.reading.estimated

    @property
    def source(self) -> str:
        """The reading's source, after the step unless that is "fresh" or "static": "uk", "yesterday (uk)", "static"."""
        if self.step in ("fresh", "static"):
            return self.reading.source
        return f"{self.step} ({self.reading.source})"

    def to_labelled_reading(self) -> Reading:
        """The reading with its own times, but `source` and `estimated` as above: what to show and to store."""
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
    """The first step of the chain that knows something about `at` (aware), or None.

    "fresh" is the reading that covers `at`; "forecast" the forecast for `at`; "stale" the newest reading, where it
    ended at most `stale_limit` (at least 0) before; "yesterday" and "last week" the readings 24 and 168 hours before;
    "static" the given yearly mean, whatever its times. All have the one `signal` and the one kind of
    `emission_factors`: a static reading of another basis is passed over, since no factor turns one into the other for
    every hour's mix. Raises InvalidReading where `readings` or `forecast` has another basis, or where their zones
    differ; ValueError where `at` is naive or `stale_limit` is negative.
    """
    basis = Basis(signal, emission_factors)
    _check(readings, forecast, stale_limit, basis)
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
    """Say why no yearly mean stands in on a basis; None where one does."""
    if basis == STATIC_BASIS:
        return None
    return f"no yearly mean stands in, which is {STATIC_BASIS}: it is not mixed with figures that are {basis}"


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
    """Everything that the chain knows of `[start, end)`, as one series.

    Stored readings that touch the window stay as they are, whole. Each gap between them is filled, piece by piece,
    with copies of what `resolve_with_fallback` finds: dated to their piece, marked as estimated, with a source that
    names the step. What nothing is known of stays a gap. Raises as `resolve_with_fallback` does, and ValueError where
    end lies before start.
    """
    _check(readings, forecast, stale_limit, Basis(signal, emission_factors))
    check_window(start, end)
    stored = [reading for reading in readings if reading.start < end and start < reading.end]
    cuts = sorted({start, end, *(time for time in _changes(readings, forecast, stale_limit) if start < time < end)})
    pieces = list[tuple[datetime, datetime, ResolvedIntensity]]()
    for begin, until in pairwise(cuts):
        # Nothing changes between two cuts; the middle avoids the instants at which it does.
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
    # A yearly mean may be that of a country, by another name than the zone that lies in it.
    zone = next((reading.zone for series in (readings, forecast) for reading in series), None)
    copies = [
        replace(known.to_labelled_reading(), start=begin, end=until, zone=zone or known.reading.zone)
        for begin, until, known in pieces
    ]
    return IntensitySeries([*stored, *copies])


def _changes(readings: IntensitySeries, forecast: IntensitySeries, stale_limit: timedelta) -> Iterator[datetime]:
    """Every instant at which the chain may come to another answer."""
    for reading in readings:
        yield reading.end + stale_limit
        for time in (reading.start, reading.end):
            yield time
            yield from (time + after for after in LOOKBACKS.values())
    for reading in forecast:
        yield from (reading.start, reading.end)


def _check(readings: IntensitySeries, forecast: IntensitySeries, stale_limit: timedelta, basis: Basis) -> None:
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
