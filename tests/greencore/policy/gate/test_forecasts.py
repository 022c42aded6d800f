from typing import get_args

import numpy as np
import pytest

from greencore.arrays import Floats
from greencore.carbon.forecasting import MAX_FORECAST_HOURS, rolling_forecasts
from greencore.policy.backtesting.slots import Slots
from greencore.policy.gate.forecasts import FORECASTS, ForecastKind, build_forecast
from tests.greencore.policy.grids import MIDNIGHT, at, series, year

HOURS = year(24 * 30)


def known(kind: ForecastKind, values: list[float], now: int, count: int, *, minutes: int = 60) -> Floats:
    slots = Slots.from_series(series(values, minutes=minutes))
    ahead: Floats = build_forecast(kind, slots, 48)(np.array([now]), count)[0]
    return ahead


def test_every_kind_of_forecast_can_be_built() -> None:
    assert set(get_args(ForecastKind)) == set(FORECASTS)


def test_a_perfect_forecast_is_the_series_itself_and_ends_with_it() -> None:
    assert known("perfect", HOURS, 5, 4).tolist() == HOURS[5:9]
    assert np.isnan(known("perfect", HOURS, len(HOURS) - 1, 3)).tolist() == [False, True, True]


def test_persistence_is_the_same_hour_of_the_last_past_day() -> None:
    assert known("persistence", HOURS, 240, 48).tolist() == HOURS[216:240] * 2
    half_hours = np.repeat(HOURS[:100], 2) + np.tile([0.0, 1.0], 100)
    assert known("persistence", half_hours.tolist(), 100, 96, minutes=30).tolist() == half_hours[52:100].tolist() * 2


def test_persistence_is_nan_before_the_series() -> None:
    assert np.isnan(known("persistence", HOURS, 0, 48)).all()
    assert np.isnan(known("persistence", HOURS, 5, 24)).tolist() == [True] * 19 + [False] * 5


def test_own_is_the_rolling_forecast_of_the_slots_hour() -> None:
    forecasts = rolling_forecasts(np.array(HOURS), 48)
    assert known("own", HOURS, 500, 48).tolist() == forecasts[500].tolist()
    halves = known("own", np.repeat(HOURS, 2).tolist(), 1001, 95, minutes=30)
    assert halves.tolist() == np.repeat(forecasts[500], 2)[1:].tolist()


def test_own_uses_the_hour_of_day_of_the_series() -> None:
    slots = Slots.from_series(series(HOURS, origin=at(7, MIDNIGHT)))
    expected = rolling_forecasts(np.array(HOURS), 24, first_hour_utc=7)[500]
    assert build_forecast("own", slots, 24)(np.array([500]), 24)[0].tolist() == expected.tolist()


def test_own_is_nan_without_a_past_and_after_its_horizon() -> None:
    assert np.isnan(known("own", HOURS, 0, 5)).all()
    slots = Slots.from_series(series(HOURS))
    far = build_forecast("own", slots, 400)(np.array([300]), MAX_FORECAST_HOURS + 2)[0]
    assert np.isnan(far).tolist() == [False] * MAX_FORECAST_HOURS + [True, True]


def test_own_reaches_beyond_the_end_of_the_series() -> None:
    assert known("persistence", HOURS, len(HOURS) - 2, 4).tolist() == HOURS[-26:-22]
    assert known("own", HOURS, len(HOURS) - 2, 4).tolist() == rolling_forecasts(np.array(HOURS), 4)[-3].tolist()


@pytest.mark.parametrize("kind", ["own", "persistence"])
@pytest.mark.parametrize("minutes", [60, 30])
def test_own_and_persistence_depend_on_past_hours_only(kind: ForecastKind, minutes: int) -> None:
    changed = HOURS[:400] + [value + 100 for value in HOURS[400:]]
    for now in (399, 400):
        before, after = (known(kind, values, now, 40, minutes=minutes) for values in (HOURS, changed))
        assert before.tolist() == after.tolist()
    later = 400 + 24 * 60 // minutes
    before, after = (known(kind, values, later, 40, minutes=minutes) for values in (HOURS, changed))
    assert before.tolist() != after.tolist()


def test_forecasts_of_many_runs_equal_those_of_each() -> None:
    slots = Slots.from_series(series(HOURS))
    for kind in FORECASTS:
        seen = build_forecast(kind, slots, 48)
        together = seen(np.array([100, 500, 719]), 30)
        for row, now in enumerate([100, 500, 719]):
            assert np.array_equal(together[row], seen(np.array([now]), 30)[0], equal_nan=True)
