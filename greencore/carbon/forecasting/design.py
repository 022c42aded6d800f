"""What a forecast may know at each hour: the pattern so far, and the regressors made of past hours alone.

Every row t is made of `values[:t]` only. Intensities enter as deviations from the pattern, in units of their own
spread over the last four weeks: so the regression needs no unit, and follows a zone whose level shifts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greencore.carbon.forecasting.pattern import DAY, WEEK, Array, mean_day, weekday_offsets

LAGS = 24
MEAN_HOURS = (24, 48, 168)
CROSSED_LAGS = (1, 2, 3, 6, 12, 24)
HARMONICS = 2

SPREAD_HOURS = 672
MIN_SPREAD_SHARE = 0.02
MIN_SPREAD_GCO2E_PER_KWH = 0.1
FURTHEST_SPREADS = 8.0
DECAY_PER_HOUR = 0.9

# How strongly a group of regressors is held back beside the lags, whose weight is 1: a ridge penalises a
# regressor of smaller values more.
CLOCK_WEIGHT = 0.3
CROSSED_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class DesignMatrix:
    """Regressors and what scales them, a row for each of the n + 1 hours at which a forecast can be made.

    `rows` is [n + 1, regressors]; `day` and `hour_utc` [n + 1] each row's day, from the first on, and hour of the day;
    `mean_day` [n + 1, 24] and `weekday_offsets` [n + 1, 7] the pattern in gCO2e/kWh; `deviation` [n + 1] how far the
    last hour lay from it; `spread`, `lowest` and `highest` [n + 1] the standard deviation and the range of the last
    four weeks, in gCO2e/kWh.
    """

    rows: Array
    day: NDArray[np.int64]
    hour_utc: NDArray[np.int64]
    mean_day: Array
    weekday_offsets: Array
    deviation: Array
    spread: Array
    lowest: Array
    highest: Array

    def expected(self, at: NDArray[np.int64], ahead: NDArray[np.int64]) -> Array:
        """What the pattern and the last hour's fading deviation expect, in gCO2e/kWh.

        `at` [m] names rows, `ahead` [k] hours ahead (0: the hour that begins then); the answer is [m, k]. It is the
        forecast where there is too little past for a regression, and what the regression corrects where there is more.
        """
        days_later, hour = np.divmod(self.hour_utc[at][:, None] + ahead[None, :], DAY)
        weekday = (self.day[at][:, None] + days_later) % WEEK
        pattern = self.mean_day[at[:, None], hour] + self.weekday_offsets[at[:, None], weekday]
        fading = self.deviation[at][:, None] * DECAY_PER_HOUR ** (ahead + 1.0)
        expected: Array = pattern + fading
        return expected


def build_design_matrix(values: Array, first_hour_utc: int) -> DesignMatrix:
    """The design of n >= 1 hourly intensities in gCO2e/kWh, the first of which begins at `first_hour_utc` (0 to 23)."""
    day, hour = np.divmod(np.arange(len(values) + 1) + first_hour_utc, DAY)
    hourly, daily = mean_day(values, first_hour_utc), weekday_offsets(values, first_hour_utc)
    before, after = np.arange(len(values)), np.arange(1, len(values) + 1)
    # Each hour against the pattern before it: what a forecast of it would have missed.
    surprise = values - hourly[before, hour[before]] - daily[before, day[before] % WEEK]
    still_missing = values - hourly[after, hour[before]] - daily[after, day[before] % WEEK]
    spread = _spread(values)
    lowest, highest = _range(values)
    lags = _lagged(surprise, range(1, LAGS + 1))
    means = np.stack([_trailing_mean(surprise, hours) for hours in MEAN_HOURS], axis=1)
    return DesignMatrix(
        rows=_rows(_in_spreads(lags, spread), _in_spreads(means, spread), hour),
        day=day,
        hour_utc=hour,
        mean_day=hourly,
        weekday_offsets=daily,
        deviation=np.concatenate([[0.0], still_missing]),
        spread=spread,
        lowest=lowest,
        highest=highest,
    )


def _rows(lags: Array, means: Array, hour: NDArray[np.int64]) -> Array:
    """[n + 1, regressors]: the hour of the day, the past, and a part of the past crossed with waves over the day."""
    crossed = CROSSED_WEIGHT * np.concatenate([lags[:, [lag - 1 for lag in CROSSED_LAGS]], means], axis=1)
    angles = [2 * np.pi * order * hour / DAY for order in range(1, HARMONICS + 1)]
    waves = [wave(angle)[:, None] for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate([CLOCK_WEIGHT * np.eye(DAY)[hour], lags, means, *(wave * crossed for wave in waves)], axis=1)


def _in_spreads(values: Array, spread: Array) -> Array:
    return np.clip(values / spread[:, None], -FURTHEST_SPREADS, FURTHEST_SPREADS)


def _spread(values: Array) -> Array:
    mean = _trailing_mean(values, SPREAD_HOURS)
    variance = np.maximum(_trailing_mean(values**2, SPREAD_HOURS) - mean**2, 0.0)
    return np.maximum(np.sqrt(variance), MIN_SPREAD_SHARE * mean + MIN_SPREAD_GCO2E_PER_KWH)


def _range(values: Array) -> tuple[Array, Array]:
    """[n + 1] lowest and [n + 1] highest of the last SPREAD_HOURS before each row; NaN for the first."""
    padded = np.concatenate([np.full(SPREAD_HOURS, np.nan), values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, SPREAD_HOURS)
    return np.fmin.reduce(windows, axis=1), np.fmax.reduce(windows, axis=1)


def _trailing_mean(values: Array, hours: int) -> Array:
    """[n + 1]: the mean of the last `hours` values before each row, of as many as there are; 0 where there is none."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(len(values) + 1)
    begin = np.maximum(end - hours, 0)
    mean: Array = (total[end] - total[begin]) / np.maximum(end - begin, 1)
    return mean


def _lagged(values: Array, lags: range) -> Array:
    """[n + 1, lags]: the values so many hours before each row; 0 before the first."""
    padded = np.concatenate([np.zeros(lags.stop), values])
    row = np.arange(len(values) + 1) + lags.stop
    return np.stack([padded[row - lag] for lag in lags], axis=1)
