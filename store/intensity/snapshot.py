"""What is stored of a zone's intensity around a time, and what that says of past, present and future."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from greencore.carbon import EmissionFactors, IntensitySeries, Reading, Signal
from greencore.carbon.fallback import ResolvedIntensity, fill_with_fallback, resolve_with_fallback
from greencore.carbon.static import StaticMean


@dataclass(frozen=True)
class IntensitySnapshot:
    """Readings of a zone, and what was last expected of it, all of one signal and one kind of emission factors."""

    zone: str
    signal: Signal
    emission_factors: EmissionFactors
    readings: IntensitySeries
    forecast: IntensitySeries

    def resolve_intensity(
        self, at: datetime, *, stale_limit: timedelta, static: StaticMean | None
    ) -> ResolvedIntensity | None:
        """What the fallback chain takes for the intensity at a time, `static` last; None where it knows nothing."""
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
        """All that the fallback chain knows from `start` to `end`, as one series: what has passed is priced by it."""
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
        """What is expected from now on: the reading in force, then the forecast."""
        in_force = self.readings.at(now)
        if in_force is None:
            return self.forecast
        later = [_from(reading, in_force.end) for reading in self.forecast if reading.end > in_force.end]
        return IntensitySeries([in_force, *later])

    def forecast_or_newest(self, now: datetime) -> IntensitySeries:
        """The forecast; where there is none, the newest reading, which is then taken to stay; else empty."""
        forecast, newest = self.forecast_from(now), self.readings.latest_at(now)
        return forecast if len(forecast) or newest is None else IntensitySeries([newest])


def _from(reading: Reading, start: datetime) -> Reading:
    return reading if reading.start >= start else replace(reading, start=start)
