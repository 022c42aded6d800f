"""The ρ rules of a backtest against `decide_rho`, on the same series, time and forecast."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greencore.carbon import IntensitySeries
from greencore.policy import IntensityMissing, Policy, PolicyContext, PreviousRho, RhoDecision, decide_rho, parse_policy
from greencore.policy.backtesting.slots import Slots
from greencore.policy.gate.forecasts import FORECASTS, ForecastKind, build_forecast
from greencore.policy.rho.simulated_rules import EpochStart, build_rho_rule
from tests.greencore.policy.grids import at, reading, series, year

CONSTANT: dict[str, Any] = {"kind": "constant", "rho": 0.6}
STEPS: dict[str, Any] = {
    "kind": "steps",
    "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 200, "rho": 0.7}, {"rho": 0.5}],
}
LINEAR: dict[str, Any] = {"kind": "linear", "clean": 100, "dirty": 300, "rho_max": 1.0, "rho_min": 0.4}
PERCENTILE: dict[str, Any] = {"kind": "percentile", "window_hours": 48, "gamma": 1.5, "rho_max": 1.0, "rho_min": 0.4}
BUDGET: dict[str, Any] = {"kind": "budget", "budget_gco2e": 500, "rho_max": 1.0, "rho_min": 0.4}
PRICE: dict[str, Any] = {"kind": "price", "gco2e_per_loss": 50, "rho_max": 1.0, "rho_min": 0.4}
KINDS = [CONSTANT, STEPS, LINEAR, PERCENTILE, BUDGET, PRICE]
SMOOTH = {"deadband": 0.05, "min_epochs": 2, "max_change": 0.2}
EVERY_KIND = pytest.mark.parametrize("body", KINDS, ids=[body["kind"] for body in KINDS])

HOURS = year(24 * 14)


@dataclass(frozen=True)
class Grid:
    """One series, as slots and as readings."""

    readings: IntensitySeries
    slots: Slots

    @classmethod
    def of(cls, values: list[float], minutes: int) -> "Grid":
        readings = series(values, minutes=minutes)
        return cls(readings, Slots.from_series(readings))


GRIDS = [Grid.of(HOURS, 60), Grid.of(HOURS + HOURS[::-1], 30), Grid.of([0.0] * 20 + HOURS[:40] * 2 + [150.0] * 40, 60)]


@dataclass(frozen=True)
class Moment:
    """State of one run at an epoch's start."""

    slot: int
    within_hours: float
    epochs_left: int
    spent_g: float
    previous: PreviousRho | None


@st.composite
def moments(draw: st.DrawFn, *, slots: int) -> Moment:
    slot, hundredths = draw(st.integers(0, slots - 1)), draw(st.integers(0, 99))
    # No epoch came before the first moment of a series.
    rho = draw(st.sampled_from([None, 0.4, 0.55, 0.7, 0.95, 1.0])) if slot + hundredths else None
    return Moment(
        slot=slot,
        within_hours=hundredths / 200,  # a whole number of seconds
        epochs_left=draw(st.integers(1, 6)),
        spent_g=draw(st.sampled_from([0.0, 0.0, 200.0, 450.0, 499.0, 500.0, 600.0])),
        previous=None if rho is None else PreviousRho(rho, draw(st.integers(1, 3))),
    )


def by_rule(
    policy: Policy,
    grid: Grid,
    kind: ForecastKind,
    several: list[Moment],
    *,
    epoch_hours: float,
    epoch_kwh: float,
) -> list[float]:
    seen = build_forecast(kind, grid.slots, 48)
    rule = build_rho_rule(policy, grid.slots, seen, epoch_hours=epoch_hours, epoch_kwh=epoch_kwh)
    start = EpochStart(
        slot=np.array([moment.slot for moment in several]),
        within_hours=np.array([moment.within_hours for moment in several]),
        epochs_left=np.array([moment.epochs_left for moment in several]),
        spent_g=np.array([moment.spent_g for moment in several]),
        previous_rho=np.array([np.nan if moment.previous is None else moment.previous.rho for moment in several]),
        epochs_at_rho=np.array([0 if moment.previous is None else moment.previous.epochs for moment in several]),
    )
    rho: list[float] = rule(start).tolist()
    return rho


def by_decision(
    policy: Policy, grid: Grid, kind: ForecastKind, moment: Moment, *, epoch_hours: float, epoch_kwh: float
) -> RhoDecision:
    now = at((moment.slot * grid.slots.step_hours) + moment.within_hours)
    return decide_rho(
        policy,
        PolicyContext(
            now=now,
            reading=grid.readings.at(now),
            window=IntensitySeries(reading for reading in grid.readings if reading.start <= now),
            forecast=expected(grid, kind, moment.slot, now),
            previous=moment.previous,
            epochs_left=moment.epochs_left,
            epoch_hours=epoch_hours,
            epoch_kwh=epoch_kwh,
            spent_gco2e=moment.spent_g,
        ),
    )


def expected(grid: Grid, kind: ForecastKind, slot: int, now: datetime) -> IntensitySeries:
    """The reading in force, then the forecast of the slots after it."""
    in_force = grid.readings.at(now)
    assert in_force is not None
    ahead = build_forecast(kind, grid.slots, 48)(np.array([slot]), 60)[0].tolist()
    length = timedelta(hours=grid.slots.step_hours)
    later = [
        reading(grid.slots.time(slot) + index * length, grid.slots.time(slot) + (index + 1) * length, value)
        for index, value in enumerate(ahead)
        if index > 0 and not np.isnan(value)
    ]
    return IntensitySeries([in_force, *later])


@EVERY_KIND
@pytest.mark.parametrize("smoothing", [None, SMOOTH], ids=["as asked", "smoothed"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_rule_equals_decide_rho(body: dict[str, Any], smoothing: dict[str, Any] | None, data: st.DataObject) -> None:
    policy = parse_policy(body if smoothing is None else {**body, "smoothing": smoothing})
    grid, kind = data.draw(st.sampled_from(GRIDS)), data.draw(st.sampled_from(FORECASTS))
    several = data.draw(st.lists(moments(slots=len(grid.slots.intensity)), min_size=1, max_size=4))
    size = {
        "epoch_hours": data.draw(st.sampled_from([0.5, 1.0, 2.5])),
        "epoch_kwh": data.draw(st.sampled_from([0.3, 1.0])),
    }
    rhos = by_rule(policy, grid, kind, several, **size)
    for rho, moment in zip(rhos, several, strict=True):
        decision = by_decision(policy, grid, kind, moment, **size)
        if decision.ends_run:
            assert np.isnan(rho), decision.reason
        else:
            assert rho == pytest.approx(decision.rho, abs=1e-9), decision.reason


@pytest.mark.parametrize("window_hours", [0.3, 0.5, 1.0, 1.25, 24.0, 30.7, 168.0])
@pytest.mark.parametrize("grid", GRIDS[:2], ids=["hourly", "half-hourly"])
def test_rank_counts_the_present_reading_up_to_now(window_hours: float, grid: Grid) -> None:
    policy = parse_policy({**PERCENTILE, "window_hours": window_hours})
    several = [Moment(slot, within, 1, 0.0, None) for slot in (0, 1, 2, 60, 200, 335) for within in (0.0, 0.25, 0.4)]
    rhos = by_rule(policy, grid, "perfect", several, epoch_hours=1.0, epoch_kwh=1.0)
    for rho, moment in zip(rhos, several, strict=True):
        decision = by_decision(policy, grid, "perfect", moment, epoch_hours=1.0, epoch_kwh=1.0)
        assert rho == pytest.approx(decision.rho, abs=1e-9), decision.reason


@pytest.mark.parametrize("on_missing", ["fallback", "hold", {"rho": 0.55}])
def test_percentile_uses_on_missing_at_the_start_of_a_series(on_missing: Any) -> None:
    policy, first = parse_policy({**PERCENTILE, "on_missing": on_missing}), Moment(0, 0.0, 1, 0.0, None)
    [rho] = by_rule(policy, GRIDS[0], "perfect", [first], epoch_hours=1.0, epoch_kwh=1.0)
    decision = by_decision(policy, GRIDS[0], "perfect", first, epoch_hours=1.0, epoch_kwh=1.0)
    assert "no readings of the last" in decision.reason
    assert rho == decision.rho


def test_backtest_does_not_fail_where_the_window_is_empty() -> None:
    policy, first = parse_policy({**PERCENTILE, "on_missing": "fail"}), Moment(0, 0.0, 1, 0.0, None)
    with pytest.raises(IntensityMissing):
        by_decision(policy, GRIDS[0], "perfect", first, epoch_hours=1.0, epoch_kwh=1.0)
    assert by_rule(policy, GRIDS[0], "perfect", [first], epoch_hours=1.0, epoch_kwh=1.0) == [0.4]


def test_a_budget_that_is_used_up_ends_the_run() -> None:
    policy = parse_policy(BUDGET)
    several = [Moment(100, 0.0, 3, spent, None) for spent in (0.0, 499.9, 500.0)]
    rhos = by_rule(policy, GRIDS[0], "perfect", several, epoch_hours=1.0, epoch_kwh=1.0)
    assert np.isnan(rhos).tolist() == [False, True, True]


def test_epoch_without_emissions_has_rho_max_under_a_used_up_budget() -> None:
    [rho] = by_rule(
        parse_policy(BUDGET), GRIDS[2], "perfect", [Moment(3, 0.0, 3, 500.0, None)], epoch_hours=1.0, epoch_kwh=1.0
    )
    assert rho == 1.0
