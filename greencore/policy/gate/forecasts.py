"""What a backtest may know of the hours ahead: everything, or what the past alone tells."""

from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from greencore.carbon.forecasting import MAX_FORECAST_HOURS, rolling_forecasts
from greencore.policy.backtesting.slots import Floats, Ints, Slots

ForecastKind = Literal["own", "persistence", "perfect"]
FORECASTS: tuple[ForecastKind, ...] = ("own", "persistence", "perfect")

DAY_HOURS = 24


class BacktestForecast(Protocol):
    """Expected intensities, as they could be known at a time."""

    def intensity_ahead(self, now: Ints, count: int) -> Floats:
        """[runs, count] gCO2e/kWh of the slots `now`[run], `now`[run] + 1 …, as known when `now`[run] begins.

        NaN where nothing is known.
        """


class PerfectForecast:
    """The series itself."""

    def __init__(self, slots: Slots) -> None:
        self._intensity = slots.intensity

    def intensity_ahead(self, now: Ints, count: int) -> Floats:
        """What will come."""
        return _taken(self._intensity, now[:, None] + np.arange(count))


class PersistenceForecast:
    """The same hour of the last day that is over at that hour."""

    def __init__(self, slots: Slots) -> None:
        self._intensity = slots.intensity
        self._day = DAY_HOURS * slots.per_hour

    def intensity_ahead(self, now: Ints, count: int) -> Floats:
        """Each slot as it was a day, or as many days as it takes, before."""
        steps = np.arange(count)
        days_back = steps // self._day + 1
        return _taken(self._intensity, now[:, None] + (steps - days_back * self._day))


class RollingForecast:
    """Our own forecast, made anew at each hour from the hours that are over."""

    def __init__(self, slots: Slots, hours: int) -> None:
        hourly = slots.hourly()
        self._forecasts = _forecasts(hourly.tobytes(), min(hours, MAX_FORECAST_HOURS), slots.origin.hour)
        self._per_hour = slots.per_hour

    def intensity_ahead(self, now: Ints, count: int) -> Floats:
        """The forecast of the hour that each slot lies in; the first hour of all has no past to forecast from."""
        hour = now // self._per_hour
        slot = now[:, None] + np.arange(count)
        ahead = slot // self._per_hour - hour[:, None]
        issued, hours = self._forecasts.shape
        expected = self._forecasts[np.minimum(hour, issued - 1)[:, None], np.minimum(ahead, hours - 1)]
        return np.where(ahead < hours, expected, np.nan)


def build_forecast(kind: ForecastKind, slots: Slots, hours: int) -> BacktestForecast:
    """The forecast of a kind, for up to `hours` ahead."""
    if kind == "perfect":
        return PerfectForecast(slots)
    if kind == "persistence":
        return PersistenceForecast(slots)
    return RollingForecast(slots, hours)


@lru_cache(maxsize=4)
def _forecasts(hourly: bytes, hours: int, first_hour_utc: int) -> Floats:
    """Forecasts of a whole series, kept: policies are compared, and starts tried one by one, on the same one."""
    forecasts = rolling_forecasts(np.frombuffer(hourly), hours, first_hour_utc=first_hour_utc)
    forecasts.setflags(write=False)
    return forecasts


def _taken(values: Floats, index: Ints) -> Floats:
    inside = (index >= 0) & (index < len(values))
    return np.where(inside, values[np.clip(index, 0, len(values) - 1)], np.nan)
