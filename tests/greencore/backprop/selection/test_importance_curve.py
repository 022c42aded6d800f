"""Importance curve against brute force, and against single selections on real profiles."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greencore.backprop import BudgetTooSmall, ImportanceCurve, Profile, importance_curve, select
from tests.greencore.backprop.selection.profiles import profiles


def worth_of(costs: Profile, seed: int) -> dict[str, float]:
    draw = random.Random(seed)
    return {tensor.name: draw.lognormvariate(0, 1) for tensor in costs.tensors}


@pytest.fixture
def curve(costs: Profile) -> ImportanceCurve:
    return importance_curve(costs, worth_of(costs, 1))


@given(profiles(), st.data())
@settings(max_examples=150, deadline=None)
def test_the_curve_is_the_optimum_at_every_budget(costs: Profile, data: st.DataObject) -> None:
    names = [tensor.name for tensor in costs.tensors]
    worth = {name: data.draw(st.integers(-5, 100), label=name) for name in names}
    curve = importance_curve(costs, worth)
    sets = [s for size in range(1, len(names) + 1) for s in itertools.combinations(names, size)]
    sets = [s for s in sets if len(s) == 1 or all(worth[name] > 0 for name in s)]
    for rho in data.draw(st.lists(st.floats(costs.floor, 1.0), min_size=5, max_size=5), label="rho"):
        best = max(sum(worth[name] for name in s) for s in sets if costs.step_flops(s) <= rho * costs.full_flops)
        assert curve.at(rho) == pytest.approx(best)
    assert curve.rho[0] == pytest.approx(costs.floor)


def test_every_point_is_reached_by_a_selection(costs: Profile, curve: ImportanceCurve) -> None:
    worth = worth_of(costs, 1)
    for point in range(0, len(curve.rho) - 1, max(len(curve.rho) // 40, 1)):
        chosen = select(costs, worth, float(curve.rho[point]))
        assert chosen.importance >= (1 - 0.001) * curve.importance[point]


@pytest.mark.parametrize("rho", [0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98])
def test_the_curve_is_within_a_thousandth_of_each_selection(costs: Profile, curve: ImportanceCurve, rho: float) -> None:
    assert curve.at(rho) == pytest.approx(select(costs, worth_of(costs, 1), rho).importance, rel=0.001)


def test_the_curve_rises_from_the_floor_to_all_positive_importance(costs: Profile) -> None:
    worth = worth_of(costs, 2)
    harmful = costs.tensors[0].name
    worth[harmful] = -1.0
    curve = importance_curve(costs, worth)
    assert curve.rho[0] == pytest.approx(costs.floor)
    assert curve.at(costs.floor) == select(costs, worth, costs.floor).importance
    assert (np.diff(curve.rho) > 0).all()
    assert (np.diff(curve.importance) > 0).all()
    assert curve.at(1.0) == pytest.approx(sum(value for value in worth.values() if value > 0))


def test_below_the_floor_the_error_states_the_floor(costs: Profile, curve: ImportanceCurve) -> None:
    with pytest.raises(BudgetTooSmall, match=f"{costs.floor:.4f}"):
        curve.at(costs.floor - 0.001)
    with pytest.raises(BudgetTooSmall, match=f"{costs.floor:.4f}"):
        importance_curve(costs, worth_of(costs, 1), up_to=costs.floor - 0.001)


def test_the_curve_may_end_where_importance_was_measured(costs: Profile, curve: ImportanceCurve) -> None:
    up_to = costs.floor + 0.1
    measured = {name: value for name, value in worth_of(costs, 1).items() if costs.share([name]) <= up_to}
    assert len(measured) < len(costs.tensors)
    short = importance_curve(costs, measured, up_to=up_to)
    assert short.rho[-1] <= up_to
    assert short.at(up_to) == pytest.approx(curve.at(up_to), rel=0.001)
    with pytest.raises(ValueError, match="no entry for"):
        importance_curve(costs, measured)


def test_the_hull_is_above_the_curve_and_meets_it_at_its_corners(curve: ImportanceCurve) -> None:
    hull = curve.concave_hull()
    assert (np.interp(curve.rho, hull.rho, hull.importance) >= curve.importance * (1 - 1e-12)).all()
    assert [curve.at(rho) for rho in hull.rho] == hull.importance.tolist()
    slopes = np.diff(hull.importance) / np.diff(hull.rho)
    assert (np.diff(slopes) < 0).all()
    assert (slopes > 0).all()
