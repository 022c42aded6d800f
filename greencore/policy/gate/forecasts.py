"""Forecasts of a backtest: perfect, persistence, and our own from past hours."""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from greencore.arrays import Floats, Ints
from greencore.carbon.forecasting import MAX_FORECAST_HOURS, rolling_forecasts
from greencore.policy.backtesting.slots import Slots

ForecastKind = Literal["own", "persistence", "perfect"]
FORECASTS: tuple[ForecastKind, ...] = get_args(ForecastKind)

DAY_HOURS = 24

BacktestForecast = Callable[[Ints, int], Floats]
"""Maps slots `now` [runs] and a count to the expected gCO2e/kWh [runs, count] from there on, as known at the start of
`now`; NaN if unknown."""


def build_forecast(kind: ForecastKind, slots: Slots, hours: int) -> BacktestForecast:
    """Build the forecast of a kind, for up to `hours` ahead.

    "perfect" is the recorded series; "persistence" the same hour of the last recorded day; "own" our own forecast,
    computed at each hour from the past hours, and NaN in the first hour of the series, which has no past.
    """
    per_hour, recorded = slots.per_hour, slots.intensity

    def record(index: Ints) -> Floats:
        inside = (index >= 0) & (index < len(recorded))
        return np.where(inside, recorded[np.clip(index, 0, len(recorded) - 1)], np.nan)

    if kind == "perfect":
        return lambda now, count: record(now[:, None] + np.arange(count))

    if kind == "persistence":
        day = DAY_HOURS * per_hour
        # One day before, or as many days as needed for a past slot.
        return lambda now, count: record(now[:, None] + np.arange(count) % day - day)

    forecasts = _forecasts(slots.hourly().tobytes(), min(hours, MAX_FORECAST_HOURS), slots.origin.hour)
    issued, reach = forecasts.shape

    def own(now: Ints, count: int) -> Floats:
        hour = now // per_hour
        ahead = (now[:, None] + np.arange(count)) // per_hour - hour[:, None]
        expected = forecasts[np.minimum(hour, issued - 1)[:, None], np.minimum(ahead, reach - 1)]
        return np.where(ahead < reach, expected, np.nan)

    return own


@lru_cache(maxsize=4)
def _forecasts(hourly: bytes, hours: int, first_hour_utc: int) -> Floats:
    """Forecasts of a whole series; cached, since many policies and starts are simulated on the same series."""
    forecasts = rolling_forecasts(np.frombuffer(hourly), hours, first_hour_utc=first_hour_utc)
    forecasts.setflags(write=False)
    return forecasts
