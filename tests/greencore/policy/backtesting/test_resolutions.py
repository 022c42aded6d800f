"""Backtests on calendar days of any length, and on readings of any length of the same hours."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from greencore.policy import BacktestError, Policy, parse_policy
from greencore.policy.gate.forecasts import ForecastKind
from tests.greencore.policy.backtesting.policies import CONSTANT, EVERY_KIND, EVERY_MODE, LINEAR, simulated, with_gate
from tests.greencore.policy.grids import series, year


@pytest.mark.parametrize(
    ("first", "hours"), [("2025-03-29", 71), ("2025-10-25", 73), ("2024-02-28", 72)], ids=["23 h", "25 h", "leap day"]
)
def test_days_of_23_and_25_hours_are_simulated_in_utc(first: str, hours: int) -> None:
    madrid = ZoneInfo("Europe/Madrid")
    begin = datetime.fromisoformat(first).replace(tzinfo=madrid)
    end = (begin + timedelta(days=3)).astimezone(UTC)
    origin = begin.astimezone(UTC)
    assert (end - origin) / timedelta(hours=1) == hours
    readings = series(year(hours), origin=origin)
    policy = with_gate(LINEAR, "pause")
    every = simulated(policy, readings, deadline_hours=24.0)
    assert every.starts == hours - 24 + 1
    # The last possible start of a window of 47 h.
    last = (end - timedelta(hours=47)).astimezone(madrid)
    result = simulated(policy, readings, start=last, deadline_hours=47.0, forecast="persistence")
    utc = simulated(policy, readings, start=last.astimezone(UTC), deadline_hours=47.0, forecast="persistence")
    assert result == utc
    assert result.finish is not None
    assert result.finish.utcoffset() == timedelta(0)
    with pytest.raises(BacktestError, match=r"start: .* needs the series for 47 h"):
        simulated(policy, readings, start=end - timedelta(hours=46.9), deadline_hours=47.0)


def _same_hours(policy: Policy, minutes: int, forecast: ForecastKind) -> None:
    """Assert that hourly readings and finer ones of the same value have equal results."""
    values = year(72)
    fine = series(np.repeat(values, 60 // minutes).tolist(), minutes=minutes)
    coarse = simulated(policy, series(values), work_hours=4.3, epochs=3, forecast=forecast)
    finer = simulated(policy, fine, work_hours=4.3, epochs=3, forecast=forecast)
    assert finer.starts == coarse.starts
    for name in ("emissions_g", "baseline_g", "constant_g", "oracle_g"):
        assert getattr(finer, name) == pytest.approx(getattr(coarse, name), rel=1e-9), name


@EVERY_KIND
@pytest.mark.parametrize("minutes", [30, 5])
def test_rho_is_the_same_on_finer_readings_of_the_same_hours(body: dict[str, Any], minutes: int) -> None:
    _same_hours(parse_policy(body), minutes, "perfect")


@EVERY_MODE
@pytest.mark.parametrize("minutes", [30, 5])
@pytest.mark.parametrize("forecast", ["perfect", "persistence", "own"])
def test_gates_are_the_same_on_finer_readings_of_the_same_hours(
    mode: str, minutes: int, forecast: ForecastKind
) -> None:
    _same_hours(with_gate(CONSTANT, mode), minutes, forecast)
