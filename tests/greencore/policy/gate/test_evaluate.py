"""Gates of one run: bounds, missing forecasts, thresholds and deadlines."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from greencore.carbon import IntensitySeries
from greencore.policy import parse_policy
from greencore.policy.gate.evaluate import (
    RunProgress,
    apply_thresholds,
    predict_rho,
)
from tests.greencore.policy.gate.gated_run import BOTH, evaluated, policy, running, waiting
from tests.greencore.policy.grids import at, pieces

MINUTE = timedelta(minutes=1)
LINEAR: dict[str, Any] = {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4}


DIP = [300.0] * 4 + [100.0] * 3 + [300.0] * 17


def test_defer_waits_for_the_best_window() -> None:
    found = evaluated(policy("defer"), waiting(3), DIP)
    assert not found.opens
    assert found.until == at(4)
    assert found.saving == pytest.approx(2 / 3)
    assert found.committed
    assert found.reason == "the best window begins at 2026-11-23 04:00 UTC, which saves 66.7%"


def test_a_window_may_begin_within_an_hour() -> None:
    found = evaluated(policy("defer"), waiting(2.5), [300.0, 200.0, 100.0, 100.0, 300.0, 300.0], hours=6)
    assert found.until == at(1.5)


def test_pause_runs_in_the_clean_hours_alone() -> None:
    values = [100.0, 300.0, 300.0, 100.0, 300.0, 100.0]
    assert evaluated(policy("pause"), waiting(3), values, hours=6).opens
    at_one = evaluated(policy("pause"), replace(running(2), committed=True), values, now=at(1), hours=5)
    assert not at_one.opens
    assert at_one.until == at(3)
    assert at_one.reason == "the planned clean hours begin at 2026-11-23 03:00 UTC, which saves 66.7%"
    assert evaluated(policy("pause"), replace(running(2), committed=True), values, now=at(3), hours=3).opens


@BOTH
def test_nothing_is_saved_on_a_grid_that_emits_nothing(mode: str) -> None:
    found = evaluated(policy(mode, min_saving=0.0), waiting(3), [0.0] * 24)
    assert found.opens
    assert found.saving == 0
    assert not found.committed


@BOTH
def test_hours_that_emit_nothing_are_the_cleanest_ones(mode: str) -> None:
    found = evaluated(policy(mode), waiting(2), [50.0, 40.0, 0.0, 0.0, 40.0])
    assert found.until == at(2)
    assert found.saving == 1


@BOTH
@pytest.mark.parametrize("value", [123.45, 300.0, 0.1])
def test_a_flat_window_is_not_waited_in(mode: str, value: float) -> None:
    found = evaluated(policy(mode, min_saving=0.0), waiting(3.3), [value] * 24, now=at(0.21), hours=20)
    assert found.opens
    assert found.saving == pytest.approx(0, abs=1e-12)
    assert not found.forced


@BOTH
def test_a_committed_run_does_not_wait_in_a_flat_window(mode: str) -> None:
    paused = RunProgress(
        epoch_left_hours=0.3,
        work_left_hours=3.0,
        rho=1.0,
        begun=mode == "pause",
        computing=False,
        switch_hours=0.5,
        committed=True,
    )
    assert evaluated(policy(mode), paused, [123.45] * 24, now=at(0.21), hours=20).opens


@BOTH
def test_without_a_forecast_it_runs_now(mode: str) -> None:
    found = evaluated(policy(mode), waiting(3), IntensitySeries(), intensity=300.0)
    assert found.opens
    assert found.reason == "the forecast does not reach far enough to plan"


@BOTH
def test_a_forecast_that_ends_before_the_work_could_is_not_planned_on(mode: str) -> None:
    assert evaluated(policy(mode), waiting(2), [300.0, 100.0, 50.0]).until == at(1)
    found = evaluated(policy(mode), waiting(3.01), [300.0, 100.0, 50.0])
    assert found.opens
    assert found.reason == "the forecast does not reach far enough to plan"


@BOTH
def test_a_forecast_that_reaches_part_of_the_way_is_planned_on_as_far_as_it_goes(mode: str) -> None:
    found = evaluated(policy(mode), waiting(2), [300.0, 200.0, 100.0, 100.0, 300.0], hours=72)
    assert found.until == at(2)


@BOTH
def test_a_gap_takes_the_reading_before_it(mode: str) -> None:
    gap = pieces((0, 2, 300.0), (2, 3, 100.0), (5, 24, 300.0))
    found = evaluated(policy(mode), waiting(3), gap)
    assert found.until == at(2)
    assert found.saving == pytest.approx(1 - 300 / 700)


@BOTH
def test_readings_after_the_deadline_do_not_matter(mode: str) -> None:
    known = [(0, 2, 300.0), (2, 4, 100.0)]
    for work_hours in (1.0, 3.0):
        found = evaluated(policy(mode), waiting(work_hours), pieces(*known, (40, 41, 1.0)), hours=5)
        assert found == evaluated(policy(mode), waiting(work_hours), pieces(*known), hours=5)
        assert found.opens == (mode == "pause" and work_hours == 3)


@BOTH
def test_a_forecast_that_begins_later_holds_back_to_now(mode: str) -> None:
    found = evaluated(policy(mode), waiting(1), pieces((2, 4, 300.0), (4, 6, 100.0)), intensity=250.0)
    assert found.until == at(4)


def test_rho_in_a_gap_is_that_of_the_intensity_before_it() -> None:
    linear = parse_policy(LINEAR)
    rho = predict_rho(linear, np.array([[np.nan, 400.0, np.nan, 100.0]]), np.array([np.nan]))
    assert rho.tolist() == [[0.4, 0.4, 0.4, 1.0]]


def test_rho_that_does_not_follow_the_intensity_stays_as_it_is() -> None:
    budget = parse_policy({"kind": "budget", "budget_gco2e": 500, "rho_max": 1.0, "rho_min": 0.4})
    assert predict_rho(budget, np.ones((2, 3)), np.array([0.5, np.nan])).tolist() == [[0.5] * 3, [0.7] * 3]


@BOTH
def test_past_its_deadline_it_runs_and_says_so(mode: str) -> None:
    found = evaluated(policy(mode), waiting(3), DIP, now=at(3), hours=-1)
    assert found.opens
    assert found.forced
    assert found.until is None
    assert found.reason == "the slack before the deadline 2026-11-23 02:00 UTC is used up, so it runs regardless"


@BOTH
def test_without_slack_it_runs_and_says_so(mode: str) -> None:
    assert not evaluated(policy(mode), waiting(3), DIP, hours=3 + 1 / 60).forced
    found = evaluated(policy(mode), waiting(3), DIP, hours=3)
    assert found.opens
    assert found.forced
    assert "is used up, so it runs regardless" in found.reason


@BOTH
def test_slack_is_computed_at_the_highest_rho(mode: str) -> None:
    eager = parse_policy({**LINEAR, "gate": {"mode": mode}})
    # At 400 gCO2e/kWh an hour of work takes 0.4 h, but at 100 it takes the whole.
    assert evaluated(eager, waiting(3), [400.0] * 24, hours=3).forced
    assert not evaluated(eager, waiting(3), [400.0] * 24, hours=3.1).forced


@BOTH
def test_it_waits_no_longer_than_the_slack_lasts_at_the_highest_rho(mode: str) -> None:
    # The cleanest hours are the last; at their ρ of 0.4 the work takes 1.2 h, but it might take 3 h.
    eager = parse_policy({**LINEAR, "gate": {"mode": mode, "min_saving": 0.0}})
    found = evaluated(eager, waiting(3), [500.0 - hour for hour in range(24)])
    assert found.until == at(21)


def test_the_running_epoch_has_its_own_rho() -> None:
    half = RunProgress(epoch_left_hours=0.5, work_left_hours=2.0, rho=0.5, begun=True, computing=True)
    assert evaluated(policy("pause"), half, DIP, hours=2.5).forced
    assert not evaluated(policy("pause"), half, DIP, hours=2.6).forced


@BOTH
def test_a_saving_of_exactly_min_saving_is_not_waited_for(mode: str) -> None:
    values = [100.0, 100.0, 75.0, 75.0]
    found = evaluated(policy(mode, min_saving=0.25), waiting(2), values, hours=4)
    assert found.opens
    assert found.reason == "waiting would save 25.0%, not more than min_saving 25.0%"
    assert evaluated(policy(mode, min_saving=0.2499), waiting(2), values, hours=4).until == at(2)


@BOTH
def test_a_started_plan_is_followed_however_little_its_rest_saves(mode: str) -> None:
    values = [101.0, 101.0, 100.0, 100.0]
    assert evaluated(policy(mode), waiting(2), values, hours=4).opens
    found = evaluated(policy(mode), replace(waiting(2), committed=True), values, hours=4)
    assert found.until == at(2)
    assert found.committed


def test_defer_that_has_begun_never_waits_again() -> None:
    values = [100.0, 500.0, 500.0, 0.0, 0.0]
    thresholds = {"pause_above": 200, "resume_below": 150}
    for computing in (True, False):
        begun = replace(running(2), committed=True, computing=computing, shut=True)
        found = evaluated(policy("defer", **thresholds), begun, values, now=at(1), hours=10)
        assert found.opens
        assert found.reason == "it has begun, and runs through"
        assert not found.forced
    assert not evaluated(policy("defer", **thresholds), waiting(2), values, now=at(1), hours=10).opens


def test_no_gate_never_waits() -> None:
    found = evaluated(policy("none"), waiting(2), DIP)
    assert found.opens
    assert found.reason == "the gate is open"
    assert not evaluated(policy("none"), waiting(30), DIP).forced


@pytest.mark.parametrize("mode", ["none", "defer", "pause"])
def test_the_thresholds_are_inclusive(mode: str) -> None:
    gate = policy(mode, pause_above=450, resume_below=400)

    def opens(intensity: float, *, was_shut: bool) -> bool:
        progress = replace(waiting(2), shut=was_shut)
        found = evaluated(gate, progress, [450.0] * 24, intensity=intensity)
        assert found.shut is not found.opens
        return found.opens

    assert opens(450.0, was_shut=False)
    assert not opens(450.0001, was_shut=False)
    assert not opens(450.0, was_shut=True)
    assert not opens(400.0001, was_shut=True)
    assert opens(400.0, was_shut=True)
    assert opens(0.0, was_shut=True)


def test_thresholds_shut_many_runs_at_once_as_they_shut_each() -> None:
    gate = policy("pause", pause_above=450, resume_below=400).gate
    intensity = np.array([450.0, 450.1, 450.0, 400.1, 400.0, 0.0])
    before = np.array([False, False, True, True, True, True])
    assert apply_thresholds(gate, intensity, before).tolist() == [False, True, True, True, False, False]
    assert not apply_thresholds(policy("pause").gate, intensity, before).any()


def test_a_shut_gate_says_which_threshold_and_until_when() -> None:
    gate = policy("pause", pause_above=450, resume_below=400)
    found = evaluated(gate, waiting(2), [100.0] * 24, intensity=460.0)
    assert found.until == at(22)
    assert found.reason == "460 gCO2e/kWh is above pause_above 450; it runs by 2026-11-23 22:00 UTC in any case"
    still = evaluated(gate, replace(waiting(2), shut=True), [100.0] * 24, intensity=420.0)
    assert still.reason.startswith("420 gCO2e/kWh is still above resume_below 400")


def test_an_intensity_that_is_not_known_shuts_nothing() -> None:
    gate = policy("pause", pause_above=450, resume_below=400)
    assert evaluated(gate, replace(waiting(2), shut=True), IntensitySeries()).opens


@pytest.mark.parametrize("mode", ["none", "defer", "pause"])
def test_the_deadline_beats_the_thresholds(mode: str) -> None:
    gate = policy(mode, pause_above=10, resume_below=5)
    assert not evaluated(gate, waiting(2), [100.0] * 24, hours=2.5).opens
    found = evaluated(gate, waiting(2), [100.0] * 24, hours=2)
    assert found.opens
    assert found.forced


def test_a_running_job_pauses_only_where_that_is_worth_a_checkpoint_and_a_reload() -> None:
    values = [130.0] + [100.0] * 23
    busy = replace(running(3), committed=True)
    assert not evaluated(policy("pause"), replace(busy, switch_hours=0.2), values).opens
    assert evaluated(policy("pause"), replace(busy, switch_hours=0.25), values).opens
    # A run that has not started has no checkpoint to reload.
    fresh = replace(waiting(3), committed=True, switch_hours=5.0)
    assert evaluated(policy("pause"), fresh, values).until == at(1)
