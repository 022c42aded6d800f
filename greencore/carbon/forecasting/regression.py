"""Forecasts hourly intensities with one ridge regression per horizon, refitted each day on past hours only.

A regression predicts the deviation of an hour from `DesignMatrix.expected`, in units of the zone's spread. Its normal
equations grow by one day at a time, so a refit costs one small linear solve for each day ahead; weights of days decay.
Ridge regression: A. E. Hoerl, R. W. Kennard, Technometrics 12 (1970) 55-67.
"""

import numpy as np

from greencore.arrays import Floats, Ints
from greencore.carbon.forecasting.design import MAX_SPREADS, DesignMatrix, build_design_matrix
from greencore.carbon.forecasting.pattern import DAY

MAX_FORECAST_HOURS = 168

RIDGE = 100.0
MEMORY_DAYS = 365.0
SKIPPED_HOURS = 72
MIN_DAYS = 7


def rolling_forecasts(values: Floats, hours: int, *, first_hour_utc: int = 0) -> Floats:
    """Forecast the next `hours` hours (1 to MAX_FORECAST_HOURS) from every hour of a past.

    `values` [n] are hourly intensities in gCO2e/kWh, finite and at least 0, without gaps, the first at the hour
    `first_hour_utc` (0 to 23). Returns F [n + 1, hours]: F[t, h] >= 0 forecasts values[t + h] from values[:t] only;
    F[0], which has no past, is NaN. Raises ValueError naming the argument that is out of range.
    """
    if not 1 <= hours <= MAX_FORECAST_HOURS:
        raise ValueError(f"hours is {hours}: expected 1 to {MAX_FORECAST_HOURS}")
    _check(values, first_hour_utc)
    forecasts = np.full((len(values) + 1, hours), np.nan)
    if len(values) == 0:
        return forecasts
    known = build_design_matrix(values, first_hour_utc)
    for ahead in _days_ahead(hours):
        equations = _Equations(known, values, ahead)
        for today in range(int(known.day[-1]) + 1):
            equations.add(today)
            at = np.flatnonzero(known.day == today)
            forecasts[at, ahead[0] : ahead[-1] + 1] = equations.forecast(at)
    forecasts[0] = np.nan
    return forecasts


def forecast_from_end(values: Floats, hours: int, *, first_hour_utc: int = 0) -> Floats:
    """Return the last row of `rolling_forecasts`, [hours], at the cost of one fit.

    `hours` is at least 1; after MAX_FORECAST_HOURS the pattern repeats. Raises ValueError as `rolling_forecasts`, and
    where `values` is empty.
    """
    _check(values, first_hour_utc)
    if hours < 1:
        raise ValueError(f"hours is {hours}: expected at least 1")
    if len(values) == 0:
        raise ValueError("values is empty: expected at least one hour")
    known = build_design_matrix(values, first_hour_utc)
    now = np.array([len(values)])
    parts = []
    for ahead in _days_ahead(min(hours, MAX_FORECAST_HOURS)):
        equations = _Equations(known, values, ahead)
        equations.add_all(int(known.day[-1]))
        parts.append(equations.forecast(now)[0])
    parts.append(known.expected(now, np.arange(MAX_FORECAST_HOURS, max(hours, MAX_FORECAST_HOURS)))[0])
    return np.concatenate(parts)


class _Equations:
    """Normal equations of the regressions for one day ahead: [regressors, regressors] and [regressors, hours]."""

    def __init__(self, known: DesignMatrix, values: Floats, ahead: Ints) -> None:
        self._known = known
        self._values = values
        self._day = known.day
        self._ahead = ahead
        # Days after which the outcome of a day's rows is known, at a midnight.
        self._delay = 2 + int(ahead[0]) // DAY
        regressors = known.rows.shape[1]
        self._gram = np.zeros((regressors, regressors))
        self._moment = np.zeros((regressors, len(ahead)))
        self._count = 0

    def add(self, today: int) -> None:
        """Add the day of rows whose outcome became known by the midnight that began `today`."""
        kept = np.exp(-1 / MEMORY_DAYS)
        self._gram *= kept
        self._moment *= kept
        self._accumulate(self._rows_of_days(today - self._delay, today - self._delay))

    def add_all(self, today: int) -> None:
        """Add every day that `add` would add up to `today`, in one step."""
        self._accumulate(self._rows_of_days(0, today - self._delay), newest=today - self._delay)

    def forecast(self, at: Ints) -> Floats:
        """Forecast the hours ahead from each of the rows `at`, [rows, hours] in gCO2e/kWh."""
        known = self._known
        forecasts = known.expected(at, self._ahead)
        if self._count >= MIN_DAYS * DAY:
            penalised = self._gram + RIDGE * np.eye(len(self._gram))
            forecasts = forecasts + known.spread[at, None] * (known.rows[at] @ np.linalg.solve(penalised, self._moment))
        return np.clip(forecasts, known.lowest[at, None], known.highest[at, None])

    def _rows_of_days(self, first: int, last: int) -> Ints:
        begin, end = np.searchsorted(self._day, [first, last + 1])
        return np.arange(max(int(begin), SKIPPED_HOURS), int(end))

    def _accumulate(self, at: Ints, newest: int | None = None) -> None:
        if len(at) == 0:
            return
        known = self._known
        outcome = self._values[at[:, None] + self._ahead[None, :]]
        target = (outcome - known.expected(at, self._ahead)) / known.spread[at, None]
        rows = known.rows[at]
        weighted = rows
        if newest is not None:
            weighted = rows * np.exp((self._day[at] - newest) / MEMORY_DAYS)[:, None]
        self._gram += weighted.T @ rows
        self._moment += weighted.T @ np.clip(target, -MAX_SPREADS, MAX_SPREADS)
        self._count += len(at)


def _days_ahead(hours: int) -> list[Ints]:
    return [np.arange(begin, min(begin + DAY, hours)) for begin in range(0, hours, DAY)]


def _check(values: Floats, first_hour_utc: int) -> None:
    if not 0 <= first_hour_utc < DAY:
        raise ValueError(f"first_hour_utc is {first_hour_utc}: expected 0 to {DAY - 1}")
    if values.ndim != 1:
        raise ValueError(f"values has {values.ndim} dimensions: expected 1")
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(wrong) > 0:
        raise ValueError(
            f"values[{wrong[0]}] is {values[wrong[0]]}: expected a finite intensity in gCO2e/kWh that is at least 0"
        )
