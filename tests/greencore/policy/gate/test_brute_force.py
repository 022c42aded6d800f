"""Gates of one run compared with brute force over every minute of its window."""

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greencore.policy.gate.evaluate import evaluate_gate, plan_gates
from tests.greencore.policy.gate.gated_run import BOTH, evaluated, policy, waiting
from tests.greencore.policy.grids import MIDNIGHT, series

MINUTE = timedelta(minutes=1)


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
