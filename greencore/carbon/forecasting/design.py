"""Builds the design matrix of the forecast: the pattern and the regressors at each hour, from past hours only.

Row t depends on `values[:t]` only. Intensities enter as deviations from the pattern, divided by their spread over the
last four weeks: the regression is scale-free, and follows a zone whose level shifts.
"""

from dataclasses import dataclass

import numpy as np

from greencore.arrays import Floats, Ints
from greencore.carbon.forecasting.pattern import DAY, WEEK, mean_day, weekday_offsets

LAGS = 24
MEAN_HOURS = (24, 48, 168)
CROSSED_LAGS = (1, 2, 3, 6, 12, 24)
HARMONICS = 2

SPREAD_HOURS = 672
MIN_SPREAD_SHARE = 0.02
MIN_SPREAD_GCO2E_PER_KWH = 0.1
MAX_SPREADS = 8.0
DECAY_PER_HOUR = 0.9

# Scales of groups of regressors (the lags have 1): a ridge penalises a regressor of smaller values more.
CLOCK_WEIGHT = 0.3
CROSSED_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class DesignMatrix:
    """Regressors and their scales, one row for each of the n + 1 hours at which a forecast can be made.

    `rows` is [n + 1, regressors]; `day` (from 0) and `hour_utc` (0 to 23) are [n + 1]; in gCO2e/kWh are the pattern,
    `mean_day` [n + 1, 24] and `weekday_offsets` [n + 1, 7], the last hour's `deviation` [n + 1] from it, and the
    standard deviation and the range of the last four weeks, `spread`, `lowest` and `highest` [n + 1].
    """

    rows: Floats
    day: Ints
    hour_utc: Ints
    mean_day: Floats
    weekday_offsets: Floats
    deviation: Floats
    spread: Floats
    lowest: Floats
    highest: Floats

    def expected(self, at: Ints, ahead: Ints) -> Floats:
        """Return the pattern plus the last hour's decaying deviation, [m, k] in gCO2e/kWh.

        `at` [m] are rows, `ahead` [k] hours ahead (0: the hour that begins then). The regression corrects this value;
        with too few past days it is the forecast.
        """
        days_later, hour = np.divmod(self.hour_utc[at][:, None] + ahead[None, :], DAY)
        weekday = (self.day[at][:, None] + days_later) % WEEK
        pattern = self.mean_day[at[:, None], hour] + self.weekday_offsets[at[:, None], weekday]
        fading = self.deviation[at][:, None] * DECAY_PER_HOUR ** (ahead + 1.0)
        return pattern + fading


def build_design_matrix(values: Floats, first_hour_utc: int) -> DesignMatrix:
    """Build the design of n >= 1 hourly intensities in gCO2e/kWh, the first at the hour `first_hour_utc` (0 to 23)."""
    day, hour = np.divmod(np.arange(len(values) + 1) + first_hour_utc, DAY)
    hourly, daily = mean_day(values, first_hour_utc), weekday_offsets(values, first_hour_utc)
    before, after = np.arange(len(values)), np.arange(1, len(values) + 1)
    # Each hour minus the pattern before it: the error of a forecast by the pattern.
    error = values - hourly[before, hour[before]] - daily[before, day[before] % WEEK]
    remaining_error = values - hourly[after, hour[before]] - daily[after, day[before] % WEEK]
    spread = _spread(values)
    lowest, highest = _range(values)
    lags = _lagged(error, range(1, LAGS + 1))
    means = np.stack([_trailing_mean(error, hours) for hours in MEAN_HOURS], axis=1)
    return DesignMatrix(
        rows=_rows(_standardise(lags, spread), _standardise(means, spread), hour),
        day=day,
        hour_utc=hour,
        mean_day=hourly,
        weekday_offsets=daily,
        deviation=np.concatenate([[0.0], remaining_error]),
        spread=spread,
        lowest=lowest,
        highest=highest,
    )


def _rows(lags: Floats, means: Floats, hour: Ints) -> Floats:
    """Return [n + 1, regressors]: the hour of the day, the past, and lags and means times daily harmonics."""
    crossed = CROSSED_WEIGHT * np.concatenate([lags[:, [lag - 1 for lag in CROSSED_LAGS]], means], axis=1)
    angles = [2 * np.pi * order * hour / DAY for order in range(1, HARMONICS + 1)]
    waves = [wave(angle)[:, None] for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate([CLOCK_WEIGHT * np.eye(DAY)[hour], lags, means, *(wave * crossed for wave in waves)], axis=1)


def _standardise(values: Floats, spread: Floats) -> Floats:
    return np.clip(values / spread[:, None], -MAX_SPREADS, MAX_SPREADS)


def _spread(values: Floats) -> Floats:
    mean = _trailing_mean(values, SPREAD_HOURS)
    variance = np.maximum(_trailing_mean(values**2, SPREAD_HOURS) - mean**2, 0.0)
    return np.maximum(np.sqrt(variance), MIN_SPREAD_SHARE * mean + MIN_SPREAD_GCO2E_PER_KWH)


def _range(values: Floats) -> tuple[Floats, Floats]:
    """Return the lowest and the highest of the last SPREAD_HOURS before each row, [n + 1] each; NaN for the first."""
    padded = np.concatenate([np.full(SPREAD_HOURS, np.nan), values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, SPREAD_HOURS)
    return np.fmin.reduce(windows, axis=1), np.fmax.reduce(windows, axis=1)


def _trailing_mean(values: Floats, hours: int) -> Floats:
    """Return the mean of up to `hours` values before each row, [n + 1]; 0 without any."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(len(values) + 1)
    begin = np.maximum(end - hours, 0)
    mean: Floats = (total[end] - total[begin]) / np.maximum(end - begin, 1)
    return mean


def _lagged(values: Floats, lags: range) -> Floats:
    """Return the values `lags` hours before each row, [n + 1, lags]; 0 before the first."""
    padded = np.concatenate([np.zeros(lags.stop), values])
    row = np.arange(len(values) + 1) + lags.stop
    return np.stack([padded[row - lag] for lag in lags], axis=1)
