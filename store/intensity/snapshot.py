"""Snapshot of a zone's readings and forecast around a time, from which past, present and future are resolved."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from greencore.carbon import EmissionFactors, IntensitySeries, Reading, Signal
from greencore.carbon.fallback import ResolvedIntensity, fill_with_fallback, resolve_with_fallback
from greencore.carbon.static import StaticMean


@dataclass(frozen=True)
class IntensitySnapshot:
    """Readings and forecast of a zone, all of one signal and the same emission factors."""

    zone: str
    signal: Signal
    emission_factors: EmissionFactors
    readings: IntensitySeries
    forecast: IntensitySeries

    def resolve_intensity(
        self, at: datetime, *, stale_limit: timedelta, static: StaticMean | None
    ) -> ResolvedIntensity | None:
        """Return the intensity at a time by the fallback chain, `static` last; None where nothing is known."""
        return resolve_with_fallback(
            at,
            readings=self.readings,
            forecast=self.forecast,
            static=None if static is None else static.reading(self.zone, at),
            stale_limit=stale_limit,
            signal=self.signal,
            emission_factors=self.emission_factors,
        )

    def series_with_fallback(
        self, start: datetime, end: datetime, *, stale_limit: timedelta, static: StaticMean | None
    ) -> IntensitySeries:
        """Return the intensity from `start` to `end` by the fallback chain, as one series; prices past energy."""
        return fill_with_fallback(
            start,
            end,
            readings=self.readings,
            forecast=self.forecast,
            static=None if static is None else static.reading(self.zone, end),
            stale_limit=stale_limit,
            signal=self.signal,
            emission_factors=self.emission_factors,
        )

    def forecast_from(self, now: datetime) -> IntensitySeries:
        """Return the intensity from now on: the current reading, then the forecast."""
        in_force = self.readings.at(now)
        if in_force is None:
            return self.forecast
        later = [_from(reading, in_force.end) for reading in self.forecast if reading.end > in_force.end]
        return IntensitySeries([in_force, *later])

    def forecast_or_newest(self, now: datetime) -> IntensitySeries:
        """Return the forecast; without one, the newest reading, assumed to persist; else an empty series."""
        forecast, newest = self.forecast_from(now), self.readings.latest_at(now)
        return forecast if len(forecast) or newest is None else IntensitySeries([newest])


def _from(reading: Reading, start: datetime) -> Reading:
    return reading if reading.start >= start else replace(reading, start=start)
