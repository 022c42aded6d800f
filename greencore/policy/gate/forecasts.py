"""Forecasts of a backtest: perfect, persistence, and our own from past hours."""

from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from greencore.arrays import Floats, Ints
from greencore.carbon.forecasting import MAX_FORECAST_HOURS, rolling_forecasts
from greencore.policy.backtesting.slots import Slots

ForecastKind = Literal["own", "persistence", "perfect"]
FORECASTS: tuple[ForecastKind, ...] = ("own", "persistence", "perfect")

DAY_HOURS = 24


class BacktestForecast(Protocol):
    """Expected intensities, as known at a given time."""

    def intensity_ahead(self, now: Ints, count: int) -> Floats:
        """Expected gCO2e/kWh [runs, count] of the slots from `now` [runs] on, as known at its start; NaN if unknown."""


class PerfectForecast:
    """Forecast that equals the recorded series."""

    def __init__(self, slots: Slots) -> None:
        self._intensity = slots.intensity

    def intensity_ahead(self, now: Ints, count: int) -> Floats:
        """Recorded intensity of each slot."""
        return _taken(self._intensity, now[:, None] + np.arange(count))


class PersistenceForecast:
    """Forecast by the same hour of the last recorded day."""

    def __init__(self, slots: Slots) -> None:
        self._intensity = slots.intensity
        self._day = DAY_HOURS * slots.per_hour

    def intensity_ahead(self, now: Ints, count: int) -> Floats:
        """Intensity of each slot one day before, or as many days as needed for a past slot."""
        steps = np.arange(count)
        days_back = steps // self._day + 1
        return _taken(self._intensity, now[:, None] + (steps - days_back * self._day))


class RollingForecast:
    """Our own forecast, computed at each hour from the past hours."""

    def __init__(self, slots: Slots, hours: int) -> None:
        hourly = slots.hourly()
        self._forecasts = _forecasts(hourly.tobytes(), min(hours, MAX_FORECAST_HOURS), slots.origin.hour)
        self._per_hour = slots.per_hour

    def intensity_ahead(self, now: Ints, count: int) -> Floats:
        """Forecast of each slot's hour; NaN in the first hour of the series, which has no past."""
        hour = now // self._per_hour
        slot = now[:, None] + np.arange(count)
        ahead = slot // self._per_hour - hour[:, None]
        issued, hours = self._forecasts.shape
        expected = self._forecasts[np.minimum(hour, issued - 1)[:, None], np.minimum(ahead, hours - 1)]
        return np.where(ahead < hours, expected, np.nan)


def build_forecast(kind: ForecastKind, slots: Slots, hours: int) -> BacktestForecast:
    """Build the forecast of a kind, for up to `hours` ahead."""
    if kind == "perfect":
        return PerfectForecast(slots)
    if kind == "persistence":
        return PersistenceForecast(slots)
    return RollingForecast(slots, hours)


@lru_cache(maxsize=4)
def _forecasts(hourly: bytes, hours: int, first_hour_utc: int) -> Floats:
    """Forecasts of a whole series; cached, since many policies and starts are simulated on the same series."""
    forecasts = rolling_forecasts(np.frombuffer(hourly), hours, first_hour_utc=first_hour_utc)
    forecasts.setflags(write=False)
    return forecasts


def _taken(values: Floats, index: Ints) -> Floats:
    inside = (index >= 0) & (index < len(values))
    return np.where(inside, values[np.clip(index, 0, len(values) - 1)], np.nan)
