"""Forecasts a zone's carbon intensity from its stored readings."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from greencore.carbon.forecasting.hourly import HourlySeries, resample_hourly
from greencore.carbon.forecasting.regression import MAX_FORECAST_HOURS, forecast_from_end
from greencore.carbon.series import EmissionFactors, IntensitySeries, Reading, Signal
from greencore.clock import HOUR, whole_hour

SOURCE = "own forecast"

MAX_HISTORY_DAYS = 3 * 365


@dataclass(frozen=True, slots=True)
class OwnForecast:
    """Forecast from a zone's past as of `now`: see `greencore.carbon.forecasting.regression`."""

    now: datetime
    past: HourlySeries
    zone: str
    signal: Signal
    emission_factors: EmissionFactors

    @classmethod
    def fit(cls, history: IntensitySeries, *, now: datetime) -> Self:
        """Fit to the readings of `history` that had ended by `now`, of the last MAX_HISTORY_DAYS days.

        Raises NoReading where there is none, ValueError where `now` is not an aware time in UTC.
        """
        if now.utcoffset() != timedelta(0):
            raise ValueError(f"now is {now.isoformat()}: expected an aware time in UTC")
        past = resample_hourly(history, now, most_hours=MAX_HISTORY_DAYS * 24)
        newest = next(reading for reading in reversed(history.readings) if reading.end <= now)
        return cls(now, past, newest.zone, newest.signal, newest.emission_factors)

    def forecast(self, hours: float) -> IntensitySeries:
        """Return hourly estimated readings from the current hour until `hours` (up to MAX_FORECAST_HOURS) from now.

        Where the past ends before the current hour, the hours between are forecast too, and left out. Raises
        ValueError where `hours` is out of range.
        """
        if not 0 < hours <= MAX_FORECAST_HOURS:
            raise ValueError(f"hours is {hours}: expected more than 0, at most {MAX_FORECAST_HOURS}")
        start = whole_hour(self.now)
        count = math.ceil((self.now - start) / HOUR + hours)
        missing = round((start - self.past.end) / HOUR)
        values = forecast_from_end(self.past.values, missing + count, first_hour_utc=self.past.start.hour)[missing:]
        return IntensitySeries(
            Reading(
                zone=self.zone,
                start=start + index * HOUR,
                end=start + (index + 1) * HOUR,
                gco2e_per_kwh=float(value),
                source=SOURCE,
                signal=self.signal,
                emission_factors=self.emission_factors,
                estimated=True,
                fetched_at=self.now,
            )
            for index, value in enumerate(values)
        )
