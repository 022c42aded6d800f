"""Backtests compared with a reference simulation of one run in plain Python."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greencore.policy import backtest, parse_policy
from tests.greencore.policy.backtesting.policies import KINDS, LINEAR, MODES, epochs
from tests.greencore.policy.grids import MIDNIGHT, at, series
from tests.greencore.policy.one_run import ReferenceSimulation, cheapest_shares


@st.composite
def single_runs(draw: st.DrawFn) -> ReferenceSimulation:
    minutes = draw(st.sampled_from([60, 60, 30]))
    count = 50 * 60 // minutes
    values = draw(st.lists(st.integers(0, 12).map(lambda tens: tens * 37.0), min_size=count, max_size=count))
    work_hours = draw(st.integers(2, 24)) / 4
    policy = draw(
        st.sampled_from([*KINDS, {**LINEAR, "smoothing": {"deadband": 0.1, "min_epochs": 2, "max_change": 0.3}}])
    )
    thresholds = draw(st.sampled_from([{}, {}, {"pause_above": 300, "resume_below": 148}, {"pause_above": 111}]))
    gate = {"mode": draw(st.sampled_from(MODES)), "min_saving": draw(st.sampled_from([0.0, 0.05])), **thresholds}
    return ReferenceSimulation(
        policy=parse_policy({**policy, "gate": gate}),
        values=values,
        step_hours=minutes / 60,
        start_hours=24 + draw(st.sampled_from([0, 0, 7, 30, 45])) / 60,
        work_hours=work_hours,
        epochs=draw(st.integers(1, 6)),
        deadline_hours=work_hours * draw(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0])),
        forecast=draw(st.sampled_from(["perfect", "persistence", "own"])),
        power_kw=0.3,
        idle_kw=draw(st.sampled_from([0.0, 0.02])),
    )


@settings(max_examples=80, deadline=None)
@given(run=single_runs())
def test_backtest_equals_the_reference_simulation(run: ReferenceSimulation) -> None:
    start, readings = at(run.start_hours), series(run.values, minutes=run.step_hours * 60)
    run.run()
    result = backtest(
        run.policy,
        readings,
        start=start,
        work_hours=run.work_hours,
        epochs=run.epochs,
        deadline_hours=run.deadline_hours,
        forecast=run.forecast,  # type: ignore[arg-type]
        power_w=run.power_kw * 1000,
        idle_power_w=run.idle_kw * 1000,
    )
    assert [rho for _, rho in epochs(result)] == pytest.approx([rho for _, rho in run.begun], abs=1e-6)
    begun = [(time - MIDNIGHT) / timedelta(hours=1) for time, _ in epochs(result)]
    assert begun == pytest.approx([time for time, _ in run.begun], abs=1e-5)
    assert result.finish is not None
    assert (result.finish - start) / timedelta(hours=1) == pytest.approx(run.finish_hours, abs=1e-5)
    assert result.emissions_g == pytest.approx(run.emissions_g, rel=1e-6, abs=1e-6)
    assert result.epochs_run == run.epochs_run
    assert result.work_share == pytest.approx(run.computing_hours / run.work_hours, abs=1e-6)
    assert result.on_time_share == (run.finish_hours <= run.deadline_hours + 1e-6)
    for counterfactual, hours in ((result.baseline_g, run.work_hours), (result.constant_g, run.computing_hours)):
        mean = readings.mean(start, start + timedelta(hours=hours)).gco2e_per_kwh
        assert counterfactual == pytest.approx(mean * hours * run.power_kw, rel=1e-6, abs=1e-6)
    assert result.oracle_g == pytest.approx(_oracle_g(run), rel=1e-6, abs=1e-6)


def _oracle_g(run: ReferenceSimulation) -> float:
    """Emissions of the cleanest minutes of the window, as many as the run computed."""
    begin, end = run.start_hours, run.start_hours + max(run.deadline_hours, run.computing_hours)
    edges = [index * run.step_hours for index in range(len(run.values) + 1)]
    inside = [
        (c, min(stop, end) - max(start, begin), 1.0)
        for c, start, stop in zip(run.values, edges, edges[1:], strict=False)
        if min(stop, end) > max(start, begin)
    ]
    shares = cheapest_shares(inside, run.computing_hours)
    return sum(c * hours * share for (c, hours, _), share in zip(inside, shares, strict=True)) * run.power_kw
