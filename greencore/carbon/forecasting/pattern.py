"""The pattern of a zone's past at each hour: its mean day and the offset of each weekday, from past hours only."""

import numpy as np

from greencore.arrays import Floats

# Hours of a day, days of a week.
DAY = 24
WEEK = 7

MEAN_DAY_MEMORY_DAYS = 14.0
WEEKDAY_MEMORY_WEEKS = 26.0
MIN_WEEKS = 3


def mean_day(values: Floats, first_hour_utc: int) -> Floats:
    """Return the mean of each hour of the day before each of the n + 1 hours, [n + 1, 24] in gCO2e/kWh.

    `values` [n >= 1] are hourly intensities, the first at the hour `first_hour_utc`. Weights of days decay with
    MEAN_DAY_MEMORY_DAYS. An hour of the day without a value takes the last value.
    """
    day, hour = np.divmod(np.arange(len(values) + 1) + first_hour_utc, DAY)
    by_day = _by_day(values, first_hour_utc)
    known = ~np.isnan(by_day)
    filled = np.where(known, by_day, 0.0)
    total, weight = (np.zeros((len(by_day) + 1, DAY)) for _ in range(2))
    kept = np.exp(-1 / MEAN_DAY_MEMORY_DAYS)
    for index in range(len(by_day)):
        total[index + 1] = np.where(known[index], kept * total[index] + filled[index], total[index])
        weight[index + 1] = np.where(known[index], kept * weight[index] + 1, weight[index])
    column = np.arange(DAY)[None, :]
    ended_today = column < hour[:, None]
    row = day[:, None] + ended_today
    last = np.concatenate([values[:1], values])[:, None]
    seen = weight[row, column] > 0
    return np.where(seen, total[row, column] / np.where(seen, weight[row, column], 1.0), last)


def weekday_offsets(values: Floats, first_hour_utc: int) -> Floats:
    """Return each weekday's mean minus the week's, before each of the n + 1 hours, [n + 1, 7] in gCO2e/kWh.

    Weekdays count from the day of the first value. The offsets are shrunk towards 0 with the positive-part
    James-Stein estimator (W. James, C. Stein, Proc. 4th Berkeley Symp. 1 (1961) 361-379). Weights of weeks decay with
    WEEKDAY_MEMORY_WEEKS; all offsets are 0 in the first MIN_WEEKS.
    """
    daily = _by_day(values, first_hour_utc).mean(axis=1)
    offsets = np.zeros((len(daily), WEEK))
    total, squares, weight = (np.zeros(WEEK) for _ in range(3))
    kept = np.exp(-1 / WEEKDAY_MEMORY_WEEKS)
    enough = sum(kept**week for week in range(MIN_WEEKS)) - 1e-9
    for day in range(len(daily)):
        if weight.min() >= enough:
            offsets[day] = _shrink(total / weight, squares / weight, float(weight.mean()))
        above_week = daily[day] - daily[max(day - WEEK + 1, 0) : day + 1].mean()
        if day >= WEEK - 1 and not np.isnan(above_week):
            at = day % WEEK
            total[at] = kept * total[at] + above_week
            squares[at] = kept * squares[at] + above_week**2
            weight[at] = kept * weight[at] + 1
    return offsets[(np.arange(len(values) + 1) + first_hour_utc) // DAY]


def _shrink(means: Floats, mean_squares: Floats, count: float) -> Floats:
    by_chance = float((mean_squares - means**2).mean()) / count
    around_zero = means - means.mean()
    seen = float((around_zero**2).mean())
    return around_zero * max(0.0, 1 - by_chance / seen) if seen > 0 else np.zeros(WEEK)


def _by_day(values: Floats, first_hour_utc: int) -> Floats:
    """Return `values` as [days, 24], a row for each day of the n + 1 hours; NaN where a day has no value."""
    days = (first_hour_utc + len(values)) // DAY + 1
    by_day = np.full(days * DAY, np.nan)
    by_day[first_hour_utc : first_hour_utc + len(values)] = values
    return by_day.reshape(days, DAY)
