"""Gates of one run: bounds, missing forecasts, deadlines, and a comparison with brute force over every minute."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greencore.carbon import IntensitySeries
from greencore.policy import Policy, parse_policy
from greencore.policy.gate.evaluate import (
    GateDecision,
    RunProgress,
    apply_thresholds,
    evaluate_gate,
    plan_gates,
    predict_rho,
)
from tests.greencore.policy.grids import MIDNIGHT, at, pieces, series

MINUTE = timedelta(minutes=1)
LINEAR: dict[str, Any] = {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4}


def policy(mode: str, *, rho: float = 1.0, **gate: Any) -> Policy:
    return parse_policy({"kind": "constant", "rho": rho, "gate": {"mode": mode, **gate}})


def waiting(work_hours: float) -> RunProgress:
    return RunProgress(epoch_left_hours=0.0, work_left_hours=work_hours, rho=None, begun=False, computing=False)


def running(work_hours: float) -> RunProgress:
    return RunProgress(epoch_left_hours=work_hours, work_left_hours=0.0, rho=1.0, begun=True, computing=True)


def evaluated(
    given_policy: Policy,
    progress: RunProgress,
    values: list[float] | IntensitySeries,
    *,
    now: datetime = MIDNIGHT,
    hours: float = 24,
    intensity: float | None = None,
) -> GateDecision:
    forecast = series(values) if isinstance(values, list) else values
    in_force = forecast.at(now)
    known = intensity if intensity is not None or in_force is None else in_force.gco2e_per_kwh
    return evaluate_gate(
        given_policy,
        progress,
        now=now,
        deadline=now + timedelta(hours=hours),
        forecast=forecast,
        intensity_gco2e_per_kwh=known,
    )


DIP = [300.0] * 4 + [100.0] * 3 + [300.0] * 17
BOTH = pytest.mark.parametrize("mode", ["defer", "pause"])


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


# Brute force over every minute.


@dataclass(frozen=True)
class Case:
    values: list[float]
    begin: int
    minutes: int
    work: int

    @property
    def ahead(self) -> list[float]:
        """The intensity of each minute from now to the deadline."""
        return [self.values[(self.begin + minute) // 60] for minute in range(self.minutes)]

    @property
    def straight(self) -> float:
        return sum(self.ahead[: self.work])


@st.composite
def cases(draw: st.DrawFn, *, unit: int = 1) -> Case:
    """Runs whose times are whole multiples of `unit` minutes."""
    values = draw(st.lists(st.sampled_from([0.0, 80.0, 100.0, 101.0, 300.0]), min_size=2, max_size=8))
    begin = draw(st.integers(0, 60 // unit - 1)) * unit
    minutes = draw(st.integers(1, (len(values) * 60 - begin) // unit)) * unit
    work = draw(st.integers(1, minutes // unit)) * unit
    return Case(values, begin, minutes, work)


def _best_pause(case: Case) -> tuple[int, float]:
    """The first of the cleanest minutes, and their emissions."""
    chosen = sorted(sorted(range(case.minutes), key=lambda minute: case.ahead[minute])[: case.work])
    return chosen[0], sum(case.ahead[minute] for minute in chosen)


def _best_window(case: Case) -> tuple[int, float]:
    ahead = np.concatenate([[0.0], np.cumsum(case.ahead)])
    emissions = np.round(ahead[case.work :] - ahead[: len(ahead) - case.work], 6)
    return int(np.argmin(emissions)), float(emissions.min())


@BOTH
@settings(deadline=None)
@given(
    case=cases(), min_saving=st.sampled_from([0.0, 0.05, 0.3]), committed=st.booleans(), rho=st.sampled_from([1.0, 0.5])
)
def test_evaluate_gate_equals_brute_force_over_every_minute(
    mode: str, case: Case, min_saving: float, committed: bool, rho: float
) -> None:
    begins, emissions = (_best_window if mode == "defer" else _best_pause)(case)
    saving = 1 - emissions / case.straight if case.straight > 0 else 0.0
    bound = committed or saving > min_saving + 1e-9
    slack = case.minutes - case.work
    progress = replace(waiting(case.work / 60 / rho), committed=committed)
    now = MIDNIGHT + case.begin * MINUTE
    found = evaluated(
        policy(mode, min_saving=min_saving, rho=rho), progress, case.values, now=now, hours=case.minutes / 60
    )
    assert found.saving == pytest.approx(saving, abs=1e-9)
    assert found.opens == (not bound or begins == 0 or slack == 0)
    assert found.committed == (bound and not (slack < 0))
    assert found.forced == (slack == 0)
    if found.until is not None:
        assert abs(found.until - (now + begins * MINUTE)) < timedelta(milliseconds=1)
        assert found.until <= now + slack * MINUTE + timedelta(milliseconds=1)


@BOTH
@settings(deadline=None)
@given(several=st.lists(cases(), min_size=1, max_size=5), committed=st.booleans())
def test_plan_gates_equals_evaluate_gate_for_each_run(mode: str, several: list[Case], committed: bool) -> None:
    widest = max(len(case.values) for case in several)
    intensity, hours = np.full((len(several), widest), np.nan), np.zeros((len(several), widest))
    for row, case in enumerate(several):
        edges = np.clip(np.arange(len(case.values) + 1) * 60 - case.begin, 0, case.minutes) / 60
        intensity[row, : len(case.values)] = case.values
        hours[row, : len(case.values)] = np.diff(edges)
    gate, every = policy(mode).gate, np.ones(len(several), dtype=bool)
    plans = plan_gates(
        gate,
        intensity,
        hours,
        np.ones_like(hours),
        np.array([case.work / 60 for case in several]),
        committed=every & committed,
        begun=~every,
        computing=~every,
        switch_hours=0.0,
    )
    for row, case in enumerate(several):
        now = MIDNIGHT + case.begin * MINUTE
        progress = replace(waiting(case.work / 60), committed=committed)
        found = evaluated(policy(mode), progress, case.values, now=now, hours=case.minutes / 60)
        assert found.saving == pytest.approx(float(plans.saving[row]), abs=1e-9)
        assert found.committed == plans.committed[row]
        if not found.forced:
            assert found.opens == (plans.delay_hours[row] < 1e-9)


@settings(deadline=None)
@given(
    case=cases(unit=15),
    mode=st.sampled_from(["none", "defer", "pause"]),
    thresholds=st.sampled_from([{}, {"pause_above": 90, "resume_below": 0}, {"pause_above": 100.5}]),
    switch_hours=st.sampled_from([0.0, 0.2]),
)
def test_a_run_evaluated_every_quarter_of_an_hour_meets_its_deadline(
    case: Case, mode: str, thresholds: dict[str, float], switch_hours: float
) -> None:
    gate, now, left = policy(mode, min_saving=0.0, **thresholds), MIDNIGHT + case.begin * MINUTE, case.work
    deadline, forecast = now + case.minutes * MINUTE, series(case.values)
    progress = replace(waiting(left / 60), switch_hours=switch_hours)
    emissions = 0.0
    while left > 0:
        assert now < deadline
        intensity = case.values[(now - MIDNIGHT) // timedelta(hours=1)]
        found = evaluate_gate(
            gate, progress, now=now, deadline=deadline, forecast=forecast, intensity_gco2e_per_kwh=intensity
        )
        assert found.opens == (found.until is None)
        assert found.until is None or now < found.until <= deadline - left * MINUTE + timedelta(milliseconds=1)
        assert not (mode == "defer" and progress.begun and not found.opens)
        if found.opens:
            left, emissions = left - 15, emissions + intensity / 4
        now += 15 * MINUTE
        progress = replace(
            progress,
            work_left_hours=left / 60,
            begun=progress.begun or found.opens,
            computing=found.opens,
            committed=found.committed,
            shut=found.shut,
        )
    if mode == "none" and not thresholds:
        assert emissions == pytest.approx(case.straight / 60)
    if mode == "pause" and not thresholds and switch_hours == 0:
        assert emissions == pytest.approx(_best_pause(case)[1] / 60)
    if mode == "defer" and not thresholds:
        assert emissions == pytest.approx(_best_window(case)[1] / 60)
