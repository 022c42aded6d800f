"""Properties of every backtest."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pytest

from greencore.carbon import IntensitySeries
from greencore.policy import BacktestDecision, BacktestError, parse_policy
from greencore.policy.gate.forecasts import ForecastKind
from tests.greencore.policy.backtesting.policies import (
    BUDGET,
    CONSTANT,
    EVERY_KIND,
    EVERY_MODE,
    LINEAR,
    MODES,
    PERCENTILE,
    STEPS,
    epochs,
    simulated,
    with_gate,
)
from tests.greencore.policy.grids import MIDNIGHT, at, pieces, series, year

YEAR_START = datetime(2025, 1, 1, tzinfo=UTC)


@cache
def grid() -> IntensitySeries:
    """A synthetic year."""
    return series(year(), origin=YEAR_START)


@cache
def days() -> IntensitySeries:
    """Its first 4 days."""
    return series(year(24 * 4), origin=YEAR_START)


@cache
def month() -> IntensitySeries:
    """Its first 30 days."""
    return series(year(24 * 30), origin=YEAR_START)


def test_an_epoch_takes_rho_of_its_hours_and_idle_power_is_added() -> None:
    # Waits for an hour at 300, computes one at 100 and half of one at 200: an epoch of 3 h at ρ = 0.5.
    readings = series([300.0, 100.0, 200.0, 300.0, 300.0, 300.0])
    policy = parse_policy({"kind": "constant", "rho": 0.5, "gate": {"mode": "defer"}})
    result = simulated(
        policy,
        readings,
        start=MIDNIGHT,
        work_hours=3.0,
        epochs=1,
        deadline_hours=6.0,
        power_w=500.0,
        idle_power_w=100.0,
    )
    assert result.emissions_g == pytest.approx(300 * 0.1 + 100 * 0.5 + 200 * 0.5 * 0.5)
    assert result.baseline_g == pytest.approx((300 + 100 + 200) * 0.5)
    assert result.constant_g == pytest.approx((300 + 100 * 0.5) * 0.5)
    assert result.oracle_g == pytest.approx((100 + 200 * 0.5) * 0.5)
    assert result.finish == at(2.5)
    assert result.work_share == pytest.approx(0.5)
    assert result.decisions == (
        BacktestDecision(at(0), 300.0, "wait", None, "the best window is ahead, which saves 42.9%"),
        BacktestDecision(at(1), 100.0, "run", None, "now is the best window"),
        BacktestDecision(at(1), 100.0, "epoch", 0.5, "epoch 1"),
        BacktestDecision(at(2), 200.0, "run", None, "it has begun, and runs through"),
        BacktestDecision(at(2.5), 200.0, "finish", None, "3.5 h before the deadline"),
    )


# Properties.


def test_pause_with_a_perfect_forecast_is_within_two_percent_of_the_oracle() -> None:
    result = simulated(with_gate(CONSTANT, "pause"), grid(), work_hours=17.0, epochs=17, deadline_hours=34.0)
    assert result.starts == 8760 - 34 + 1
    assert result.oracle_g <= result.emissions_g <= result.oracle_g * 1.02
    assert result.moved_in_time_saving > 0.05
    assert result.on_time_share == 1


def test_pause_at_min_saving_0_with_a_perfect_forecast_equals_the_oracle() -> None:
    policy = with_gate(CONSTANT, "pause", min_saving=0.0)
    many = simulated(policy, grid(), work_hours=17.0, epochs=17, deadline_hours=34.0)
    assert many.emissions_g == pytest.approx(many.oracle_g, rel=1e-12)
    # No start emits less than its oracle, so that equal means imply equality of each.
    for start in (0.0, 1000.0, 2000.25, 5000.5):
        one = simulated(policy, grid(), start=at(start, YEAR_START), work_hours=17.0, epochs=17, deadline_hours=34.0)
        assert one.emissions_g == pytest.approx(one.oracle_g, rel=1e-12)
        assert one.oracle_share == pytest.approx(1.0)


def test_our_own_forecast_reaches_most_of_the_oracles_saving() -> None:
    starts = [at(hour, YEAR_START) for hour in range(60 * 24, 8760 - 34)]
    policy = with_gate(CONSTANT, "pause")
    own = simulated(policy, grid(), start=starts, work_hours=17.0, epochs=17, deadline_hours=34.0, forecast="own")
    assert own.oracle_share is not None
    assert own.oracle_share >= 0.7
    assert own.on_time_share == 1


@EVERY_KIND
@pytest.mark.parametrize("forecast", ["own", "persistence"])
@EVERY_MODE
def test_no_decision_depends_on_future_hours(body: dict[str, Any], forecast: ForecastKind, mode: str) -> None:
    changed_from = 420
    values = year(480)
    changed = values[:changed_from] + [1.5 * value + 100 for value in values[changed_from:]]
    changed_budget = {"budget_gco2e": 2000} if body is BUDGET else {}
    policy = with_gate({**body, **changed_budget}, mode, pause_above=260, resume_below=250)
    results = [
        simulated(
            policy, series(known), start=at(414.5), work_hours=16.0, epochs=16, forecast=forecast, deadline_hours=40.0
        )
        for known in (values, changed)
    ]
    before, after = ([step for step in result.decisions if step.time < at(changed_from)] for result in results)
    assert len(before) > 5
    assert before == after
    assert results[0].emissions_g != results[1].emissions_g


@EVERY_KIND
def test_back_to_back_epochs_move_nothing_in_time_however_rho_varies(body: dict[str, Any]) -> None:
    result = simulated(parse_policy(body), month(), work_hours=17.0, epochs=20)
    assert result.moved_in_time_saving == 0.0
    assert result.spread is not None
    assert result.spread.moved_in_time_saving == (0.0, 0.0, 0.0)
    assert result.emissions_g == pytest.approx(result.constant_g)
    if body is not CONSTANT:
        assert result.less_work_saving > 0.05
    one = simulated(parse_policy(body), month(), start=at(100.3, YEAR_START), work_hours=17.0, epochs=20)
    assert one.moved_in_time_saving == 0.0


@EVERY_KIND
@EVERY_MODE
def test_the_two_savings_add_up_to_the_whole(body: dict[str, Any], mode: str) -> None:
    result = simulated(with_gate(body, mode), days(), forecast="persistence", idle_power_w=20.0)
    whole = 1 - result.emissions_g / result.baseline_g
    assert result.less_work_saving + result.moved_in_time_saving == pytest.approx(whole, abs=1e-9)


@EVERY_KIND
@EVERY_MODE
def test_a_grid_without_emissions_has_no_savings(body: dict[str, Any], mode: str) -> None:
    result = simulated(with_gate(body, mode, min_saving=0.0), series([0.0] * 72), work_hours=5.0, epochs=3)
    assert (result.emissions_g, result.baseline_g, result.constant_g, result.oracle_g) == (0, 0, 0, 0)
    assert (result.less_work_saving, result.moved_in_time_saving) == (0, 0)
    assert result.oracle_share is None
    assert result.epochs_run == 3


def test_on_a_flat_grid_nothing_is_moved_and_nothing_waits() -> None:
    for mode in MODES:
        policy = with_gate(CONSTANT, mode, min_saving=0.0)
        result = simulated(policy, series([123.45] * 240), start=at(7.3), idle_power_w=50.0)
        assert result.finish == at(15.3)
        assert result.moved_in_time_saving == 0
        assert result.oracle_share is None
        assert {step.action for step in result.decisions} == {"run", "epoch", "finish"}


@EVERY_MODE
@pytest.mark.parametrize("budget_gco2e", [400.0, 1500.0])
def test_with_a_perfect_forecast_a_budget_is_never_exceeded(mode: str, budget_gco2e: float) -> None:
    policy = with_gate({**BUDGET, "budget_gco2e": budget_gco2e}, mode)
    for start in range(0, 600, 41):
        result = simulated(policy, month(), start=at(start + 0.4, YEAR_START), deadline_hours=20.0)
        # An epoch is planned without a pause: a pause moves its rest to cleaner hours, unless the deadline forces it.
        forced = any("slack before the deadline is used up" in step.reason for step in result.decisions)
        assert result.emissions_g <= budget_gco2e * (1 + (1e-3 if forced and mode == "pause" else 1e-8))


def test_a_budget_is_exceeded_by_at_most_the_forecast_error_of_one_epoch() -> None:
    policy, budget_gco2e, epoch_kwh = parse_policy({**BUDGET, "budget_gco2e": 900.0}), 900.0, 2.0
    overspent = 0
    for start in range(24, 648, 19):
        begin = at(start + 0.4, YEAR_START)
        result = simulated(policy, month(), start=begin, epochs=4, forecast="persistence")
        assert result.finish is not None
        ends = [*[time for time, _ in epochs(result)[1:]], result.finish]
        wrong = 0.0
        for (begun, rho), end in zip(epochs(result), ends, strict=True):
            hour = begun.replace(minute=0, second=0, microsecond=0)
            now = month().at(begun)
            assert now is not None
            day_before = [month().at(hour + timedelta(hours=ahead - 24)) for ahead in range(1, 4)]
            expected = pieces(
                (0, 1, now.gco2e_per_kwh),
                *((1 + ahead, 2 + ahead, known.gco2e_per_kwh) for ahead, known in enumerate(day_before) if known),
                origin=hour,
            )
            means = [known.mean(begun, end).gco2e_per_kwh for known in (month(), expected)]
            wrong = max(wrong, (means[0] - means[1]) * epoch_kwh * rho)
        assert result.emissions_g <= budget_gco2e + wrong + 1e-6
        overspent += result.emissions_g > budget_gco2e + 1e-6
    assert overspent > 0


def test_a_budget_that_is_used_up_ends_the_run() -> None:
    policy = parse_policy({**BUDGET, "budget_gco2e": 200.0})
    result = simulated(policy, month(), start=at(48, YEAR_START))
    assert result.emissions_g <= 200
    assert 0 < result.epochs_run < 8
    end = next(step for step in result.decisions if step.action == "end")
    assert end.reason == "the budget is used up: the run ends"
    assert result.finish == end.time


@pytest.mark.parametrize(
    ("body", "mode", "forecast", "hours"),
    [(LINEAR, "pause", "own", 200), (STEPS, "defer", "perfect", 100), (BUDGET, "defer", "persistence", 48)],
)
def test_every_start_counts_the_same(body: dict[str, Any], mode: str, forecast: ForecastKind, hours: int) -> None:
    policy, readings = with_gate(body, mode), series(year(hours), origin=YEAR_START)
    together = simulated(policy, readings, forecast=forecast)
    assert together.starts == hours - 24 + 1
    starts = [at(hour, YEAR_START) for hour in range(together.starts)]
    singles = [simulated(policy, readings, start=start, forecast=forecast) for start in starts]
    for name in ("emissions_g", "baseline_g", "constant_g", "oracle_g", "work_share", "epochs_run", "on_time_share"):
        assert getattr(together, name) == pytest.approx(np.mean([getattr(single, name) for single in singles])), name
    assert together.spread is not None
    for name in ("emissions_g", "less_work_saving", "moved_in_time_saving"):
        quantiles = np.quantile([getattr(single, name) for single in singles], [0.05, 0.5, 0.95])
        assert getattr(together.spread, name) == pytest.approx(quantiles), name
    assert together.finish is None
    assert together.decisions == ()
    assert simulated(policy, readings, start=starts, forecast=forecast) == together
    some = simulated(policy, readings, start=starts[5:9], forecast=forecast)
    assert some.emissions_g == pytest.approx(np.mean([single.emissions_g for single in singles[5:9]]))
    assert singles[0].spread is None


def test_results_do_not_depend_on_the_number_of_runs_simulated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = with_gate(PERCENTILE, "pause")
    at_once = simulated(policy, month(), forecast="persistence")
    monkeypatch.setattr("greencore.policy.backtesting.backtest.MAX_VALUES", 1000)
    parts = simulated(policy, month(), forecast="persistence")
    assert parts.emissions_g == pytest.approx(at_once.emissions_g, rel=1e-12)
    assert parts.oracle_g == pytest.approx(at_once.oracle_g, rel=1e-12)
    assert parts.starts == at_once.starts
    assert parts.spread is not None
    assert at_once.spread is not None
    assert parts.spread.emissions_g == pytest.approx(at_once.spread.emissions_g, rel=1e-12)


GATES: list[dict[str, Any]] = [
    {"mode": mode, "min_saving": 0.0, **thresholds}
    for mode in MODES
    for thresholds in ({}, {"pause_above": 1, "resume_below": 0}, {"pause_above": 230, "resume_below": 180})
]


@EVERY_KIND
@pytest.mark.parametrize("gate", GATES, ids=lambda gate: "-".join(str(value) for value in gate.values()))
def test_every_start_meets_a_deadline_that_can_be_met(body: dict[str, Any], gate: dict[str, Any]) -> None:
    policy = parse_policy({**body, "gate": gate})
    _, rho_max = policy.rho_range
    for slack_hours in (0.0, 20.0):
        result = simulated(
            policy,
            days(),
            work_hours=9.3,
            epochs=4,
            deadline_hours=9.3 * rho_max + slack_hours,
            forecast="persistence",
            switch_hours=0.2,
        )
        assert result.on_time_share == 1.0


@EVERY_MODE
def test_a_run_with_an_impossible_deadline_starts_at_once(mode: str) -> None:
    policy = with_gate(CONSTANT, mode, pause_above=1, resume_below=0)
    result = simulated(policy, month(), start=at(50.5, YEAR_START), deadline_hours=5.0)
    assert result.finish == at(58.5, YEAR_START)
    assert result.on_time_share == 0
    assert result.decisions[0].action == "run"
    assert result.decisions[0].reason == "the slack before the deadline is used up, so it runs regardless"
    assert result.decisions[-1].reason == "3 h after the deadline"


def test_the_default_deadline_is_the_longest_run_plus_max_delay_hours() -> None:
    policy = with_gate({**CONSTANT, "rho": 0.5}, "defer", max_delay_hours=6.0, min_saving=0.0)
    falling = series([float(500 - hour) for hour in range(100)])
    result = simulated(policy, falling, start=at(3), deadline_hours=None)
    assert result.finish == at(3 + 4 + 6)
    assert result.decisions[-1].reason == "at the deadline"


def test_switch_hours_reduce_the_number_of_pauses() -> None:
    policy = with_gate(CONSTANT, "pause", min_saving=0.0)
    values = ([100.0, 105.0] * 6 + [300.0] * 12) * 3

    def pauses(switch_hours: float, minutes: int) -> int:
        readings = series(np.repeat(values, 60 // minutes).tolist(), minutes=minutes)
        result = simulated(policy, readings, start=MIDNIGHT, switch_hours=switch_hours)
        return sum(step.action == "pause" for step in result.decisions)

    assert pauses(0.0, 60) > 0
    assert pauses(0.5, 60) == 0
    assert pauses(0.5, 30) == 0


def test_every_start_is_covered_by_the_series() -> None:
    readings = series([100.0] * 72, minutes=30, origin=at(0.5))
    every = simulated(with_gate(CONSTANT, "defer"), readings)
    assert every.starts == 12  # from 01:00 to 12:00; it ends at 12:30 the day after
    assert simulated(with_gate(CONSTANT, "defer"), readings, start=at(0.5)).starts == 1
    assert simulated(with_gate(CONSTANT, "defer"), readings, start=at(12.5)).starts == 1
    for outside in (at(0.4), at(12.6)):
        with pytest.raises(BacktestError, match="it covers 2026-11-23T00:30:00"):
            simulated(with_gate(CONSTANT, "defer"), readings, start=outside)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"start": datetime(2026, 11, 23, 1)}, "start: 2026-11-23T01:00:00 has no offset"),  # noqa: DTZ001
        ({"start": [at(1), datetime(2026, 11, 23, 2)]}, "start: 2026-11-23T02:00:00 has no offset"),  # noqa: DTZ001
        ({"start": []}, "start: given none"),
        ({"start": at(-1)}, "start: 2026-11-22T23:00:00.* needs the series for 24 h"),
        ({"start": at(30)}, "start: 2026-11-24T06:00:00.* needs the series for 24 h"),
        ({"deadline_hours": 49.0}, "series: it covers .* expected at least the 49 h"),
        ({"deadline_hours": None, "work_hours": 30.0}, "series: it covers .* expected at least the 54 h"),
        ({"work_hours": 0.0}, "work_hours: given 0.0"),
        ({"work_hours": float("inf")}, "work_hours: given inf"),
        ({"epochs": 0}, "epochs: given 0: expected at least 1"),
        ({"deadline_hours": -1.0}, "deadline_hours: given -1.0"),
        ({"deadline_hours": float("nan")}, "deadline_hours: given nan"),
        ({"power_w": float("nan")}, "power_w: given nan"),
        ({"power_w": 0.0}, "power_w: given 0.0"),
        ({"idle_power_w": -1.0}, "idle_power_w: given -1.0"),
        ({"idle_power_w": float("nan")}, "idle_power_w: given nan"),
        ({"switch_hours": -0.1}, "switch_hours: given -0.1"),
        ({"forecast": "oracle"}, "forecast: given 'oracle': expected one of own, persistence, perfect"),
    ],
)
def test_an_error_names_the_argument(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BacktestError, match=message) as caught:
        simulated(with_gate(CONSTANT, "pause"), series([100.0] * 48), **changed)
    assert caught.value.field == message.split(":")[0]


def test_an_empty_series_is_refused() -> None:
    with pytest.raises(BacktestError, match="series: it is empty"):
        simulated(with_gate(CONSTANT, "pause"), IntensitySeries())
