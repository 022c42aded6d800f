"""Forecasts a zone's carbon intensity from the readings stored of it."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from greencore.carbon.forecasting.hourly import HourlySeries, resample_hourly, whole_hour
from greencore.carbon.forecasting.regression import MAX_FORECAST_HOURS, forecast_from_end
from greencore.carbon.series import EmissionFactors, IntensitySeries, Reading, Signal

SOURCE = "own forecast"

MAX_HISTORY_DAYS = 3 * 365

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class OwnForecast:
    """The forecast from a zone's own past, as of `now`: see `greencore.carbon.forecasting.regression`."""

    now: datetime
    past: HourlySeries
    zone: str
    signal: Signal
    emission_factors: EmissionFactors

    @classmethod
    def fit(cls, history: IntensitySeries, *, now: datetime) -> Self:
        """Fit to `history` as of `now`: only readings of its last MAX_HISTORY_DAYS days that had ended are used.

        Where readings of both kinds of emission factors are mixed, those of the newest's kind are. Raises NoReading
        where there is none, ValueError where `now` is not an aware time in UTC.
        """
        if now.utcoffset() != timedelta(0):
            raise ValueError(f"now is {now.isoformat()}: expected an aware time in UTC")
        past = resample_hourly(history, now, most_hours=MAX_HISTORY_DAYS * 24)
        newest = next(reading for reading in reversed(history.readings) if reading.end <= now)
        return cls(now, past, newest.zone, newest.signal, newest.emission_factors)

    def forecast(self, hours: float) -> IntensitySeries:
        """Hourly readings from the start of the present hour until `hours` (0 to MAX_FORECAST_HOURS) from now.

        Each is marked as estimated. Where the past ends before the present hour, the hours between are forecast too,
        and left out. Raises ValueError where `hours` is out of range.
        """
        if not 0 < hours <= MAX_FORECAST_HOURS:
            raise ValueError(f"hours is {hours}: expected more than 0, at most {MAX_FORECAST_HOURS}")
        start = whole_hour(self.now)
        count = math.ceil((self.now - start) / _HOUR + hours)
        missing = round((start - self.past.end) / _HOUR)
        values = forecast_from_end(self.past.values, missing + count, first_hour_utc=self.past.start.hour)[missing:]
        return IntensitySeries(
            Reading(
                zone=self.zone,
                start=start + index * _HOUR,
                end=start + (index + 1) * _HOUR,
                gco2e_per_kwh=float(value),
                source=SOURCE,
                signal=self.signal,
                emission_factors=self.emission_factors,
                estimated=True,
                fetched_at=self.now,
            )
            for index, value in enumerate(values)
        )
