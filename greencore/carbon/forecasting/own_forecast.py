"""Forecasts a zone's carbon intensity from its stored readings."""

import math
from dataclasses import replace
from datetime import datetime, timedelta

from greencore.carbon.forecasting.hourly import resample_hourly
from greencore.carbon.forecasting.regression import MAX_FORECAST_HOURS, forecast_from_end
from greencore.carbon.series import IntensitySeries
from greencore.clock import HOUR, whole_hour

SOURCE = "own forecast"

MAX_HISTORY_DAYS = 3 * 365


def forecast_own(history: IntensitySeries, *, now: datetime, hours: float) -> IntensitySeries:
    """Return hourly estimated readings from the current hour until `hours` (up to MAX_FORECAST_HOURS) from `now`.

    The regression of `greencore.carbon.forecasting.regression` is fitted to the readings of `history` that had ended by
    `now`, of the last MAX_HISTORY_DAYS days. Where they end before the current hour, the hours between are forecast
    too, and left out. Raises NoReading where there is none, ValueError where `now` is not an aware time in UTC or
    `hours` is out of range.
    """
    if now.utcoffset() != timedelta(0):
        raise ValueError(f"now is {now.isoformat()}: expected an aware time in UTC")
    if not 0 < hours <= MAX_FORECAST_HOURS:
        raise ValueError(f"hours is {hours}: expected more than 0, at most {MAX_FORECAST_HOURS}")
    past = resample_hourly(history, now, most_hours=MAX_HISTORY_DAYS * 24)
    newest = next(reading for reading in reversed(history.readings) if reading.end <= now)
    start = whole_hour(now)
    count = math.ceil((now - start) / HOUR + hours)
    missing = round((start - past.end) / HOUR)
    values = forecast_from_end(past.values, missing + count, first_hour_utc=past.start.hour)[missing:]
    return IntensitySeries(
        replace(
            newest,
            start=start + index * HOUR,
            end=start + (index + 1) * HOUR,
            gco2e_per_kwh=float(value),
            source=SOURCE,
            estimated=True,
            fetched_at=now,
        )
        for index, value in enumerate(values)
    )
