"""Benchmarks our own forecast: share of the possible saving that pauses planned by it reach, and its time."""

import argparse
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import publish
from greencore.arrays import Floats
from greencore.carbon import IntensitySeries, Reading
from greencore.carbon.forecasting import forecast_own, rolling_forecasts
from greencore.carbon.forecasting.hourly import resample_hourly
from greencore.carbon.trace_file import read_trace

WORK_HOURS = 17
WINDOW_HOURS = 34
LEARNING_DAYS = 59
MIN_SHARE = 0.70
AIMED_SHARE = 0.85
MAX_SECONDS = 10.0
YEAR = 365 * 24


def main() -> int:
    """Measure, print and write; return 1 where a check fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of yearly traces as CSV files")
    folder: Path = parser.parse_args().data
    files = sorted(folder.glob("*.csv"))
    if not files:
        parser.error(f"{folder} holds no CSV file: expected traces of hourly carbon intensities")
    measured = [_row(file.stem, _values(file)) for file in files]
    made_up = [_row(name, make()) for name, make in SYNTHETIC_SERIES.items()]
    rows = [*measured, *made_up]
    return publish(
        "own_forecast",
        "Pauses planned on our own forecast: share of the oracle's saving, 17 h of work in 34 h",
        rows,
        notes=[
            f"each hour from day {LEARNING_DAYS} on is a start; a job runs in an hour where that is forecast among the"
            " cheapest it still needs of those it has left, and plans again each hour; the present hour is not known",
            "share: (start now − reached) / (start now − the cheapest hours in hindsight), of mean emissions; halves:"
            " of the earlier and the later starts",
            "yesterday: each hour as 24 h before; plan once: our forecast, but planned only once",
            f"year_s: every forecast of a year for {WINDOW_HOURS} h; fit_s: one fit and its 72 h on all of the year",
            f"the aim of {AIMED_SHARE:.0%} is reached by {sum(row['share'] >= AIMED_SHARE for row in measured)} of"
            f" {len(measured)} traces",
        ],
        checks={
            f"at least {MIN_SHARE:.0%} of the oracle's saving on every trace": min(row["share"] for row in measured)
            >= MIN_SHARE,
            f"a year in under {MAX_SECONDS:g} s": max(row["year_s"] for row in rows) < MAX_SECONDS,
        },
        options="--data FOLDER",
    )


def sum_intensities(values: Floats, forecasts: Floats) -> Floats:
    """Sum the intensities of the planned hours, of the first hours and of the cheapest: [starts, 3], in gCO2e/kWh.

    `values` [n] are hourly intensities, `forecasts` [n + 1, WINDOW_HOURS] those of `rolling_forecasts`.
    """
    first = LEARNING_DAYS * 24
    windows = np.lib.stride_tricks.sliding_window_view(values, WINDOW_HOURS)[first:]
    starts = np.arange(len(windows)) + first
    done = np.zeros(len(starts), dtype=np.int64)
    emitted = np.zeros(len(starts))
    for hour in range(WINDOW_HOURS):
        left = WINDOW_HOURS - hour
        needed = WORK_HOURS - done
        ahead = forecasts[starts + hour, :left]
        dearest_needed = np.sort(ahead, axis=1)[np.arange(len(starts)), np.maximum(needed - 1, 0)]
        runs = (needed > 0) & ((ahead[:, 0] <= dearest_needed) | (needed >= left))
        emitted += runs * windows[:, hour]
        done += runs
    return np.stack([emitted, windows[:, :WORK_HOURS].sum(1), np.sort(windows, axis=1)[:, :WORK_HOURS].sum(1)], axis=1)


def _row(name: str, values: Floats) -> dict[str, Any]:
    started = time.perf_counter()
    forecasts = rolling_forecasts(values, WINDOW_HOURS)
    seconds = time.perf_counter() - started
    own = sum_intensities(values, forecasts)
    half = len(own) // 2
    return {
        "series": name,
        "share": _share(own),
        "first_half": _share(own[:half]),
        "second_half": _share(own[half:]),
        "yesterday": _share(sum_intensities(values, _yesterday(values))),
        "plan_once": _share(_planned_once(values, forecasts, own)),
        "oracle_saving": float(1 - own[:, 2].mean() / own[:, 1].mean()),
        "year_s": seconds * YEAR / len(values),
        "fit_s": _fit_seconds(values),
    }


def _share(sums: Floats) -> float | None:
    reached_sum, now, oracle = sums.mean(axis=0)
    return float((now - reached_sum) / (now - oracle)) if now - oracle > 1e-9 * now else None


def _planned_once(values: Floats, forecasts: Floats, own: Floats) -> Floats:
    first = LEARNING_DAYS * 24
    windows = np.lib.stride_tricks.sliding_window_view(values, WINDOW_HOURS)[first:]
    chosen = np.argsort(forecasts[first : first + len(windows)], axis=1, kind="stable")[:, :WORK_HOURS]
    return np.column_stack([np.take_along_axis(windows, chosen, axis=1).sum(axis=1), own[:, 1:]])


def _yesterday(values: Floats) -> Floats:
    row = np.arange(len(values) + 1)
    ahead = [np.maximum(row + hour - 24 * (hour // 24 + 1), 0) for hour in range(WINDOW_HOURS)]
    return np.stack([values[at] for at in ahead], axis=1)


def _fit_seconds(values: Floats) -> float:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    history = _series(start, values)
    now = start + timedelta(hours=len(values))
    started = time.perf_counter()
    forecast_own(history, now=now, hours=72)
    return time.perf_counter() - started


def _series(start: datetime, values: Floats) -> IntensitySeries:
    hour = timedelta(hours=1)
    return IntensitySeries(
        Reading(
            zone="any",
            start=start + index * hour,
            end=start + (index + 1) * hour,
            gco2e_per_kwh=float(value),
            source="benchmark",
            fetched_at=start,
        )
        for index, value in enumerate(values)
    )


def _values(file: Path) -> Floats:
    series = IntensitySeries(read_trace(file, file.stem))
    return resample_hourly(series, series.readings[-1].end, most_hours=10 * YEAR).values


def _solar() -> Floats:
    """Solar grid: a dip at noon whose depth varies from day to day with the clouds."""
    draw = np.random.default_rng(1)
    hour = np.arange(YEAR)
    sun = np.maximum(0.0, np.sin((hour % 24 - 6) / 12 * np.pi))
    clouds = np.repeat(np.clip(draw.normal(0.8, 0.25, 365), 0.1, 1.1), 24)
    values: Floats = 400 - 250 * sun * clouds + 20 * _wind(draw) + draw.normal(0, 10, YEAR)
    return np.maximum(values, 0.0)


def _windy() -> Floats:
    """Wind grid: autocorrelated over days, with hardly a daily pattern, so that it is hard to forecast."""
    values: Floats = 350 + 100 * _wind(np.random.default_rng(2)) + 15 * np.sin(np.arange(YEAR) / 24 * 2 * np.pi)
    return np.clip(values, 20, 800)


def _weekends() -> Floats:
    """The solar series, a third lower on Saturdays and Sundays."""
    weekend = np.arange(YEAR) // 24 % 7 >= 5
    return _solar() * np.where(weekend, 0.67, 1.0)


def _wind(draw: np.random.Generator) -> Floats:
    wind = np.zeros(YEAR)
    for hour in range(1, YEAR):
        wind[hour] = 0.985 * wind[hour - 1] + 0.17 * draw.normal()
    return wind


SYNTHETIC_SERIES: dict[str, Callable[[], Floats]] = {
    "made up: solar": _solar,
    "made up: wind": _windy,
    "made up: weekends": _weekends,
    "made up: flat": lambda: np.full(YEAR, 56.0),
}


if __name__ == "__main__":
    sys.exit(main())
