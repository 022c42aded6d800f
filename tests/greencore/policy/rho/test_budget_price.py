import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greencore.arrays import Floats
from greencore.policy import DEFAULT_UTILITY, UtilityCurve, budget_rhos, price_rho, smallest_budget_gco2e
from tests.greencore.policy.curves import curves

costs = st.lists(st.just(0.0) | st.integers(1, 9).map(float) | st.floats(0.01, 100), min_size=1, max_size=4)
ranges = st.lists(st.integers(10, 100), min_size=2, max_size=2).map(lambda bounds: [b / 100 for b in sorted(bounds)])


def best_value(curve: UtilityCurve, cost: Floats, budget: float, rho_min: float, rho_max: float) -> float:
    """The most that the budget can buy: in some optimum all epochs but one are at points of the curve."""
    points = [rho_min, *[rho for rho in curve.rho.tolist() if rho_min < rho < rho_max], rho_max]
    best = -np.inf
    for partial, grams in enumerate(cost):
        for others in product(points, repeat=len(cost) - 1):
            rho = np.insert(others, partial, 0.0)
            left = budget - float(cost @ rho)
            rho[partial] = min(rho_max, left / grams) if grams else rho_max
            if left >= 0 and rho[partial] >= rho_min:
                best = max(best, float(curve.at(rho).sum()))
    return best


@settings(max_examples=150, deadline=None)
@given(curve=curves(), cost=costs, bounds=ranges, share=st.floats(0, 1.2))
def test_budget_rhos_maximises_the_value(
    curve: UtilityCurve, cost: list[float], bounds: list[float], share: float
) -> None:
    rho_min, rho_max = bounds
    least, most = sum(cost) * rho_min, sum(cost) * rho_max
    budget = least + share * (most - least)
    plan = budget_rhos(curve, cost, budget, rho_min=rho_min, rho_max=rho_max)
    assert plan.feasible
    assert (plan.rho >= rho_min).all()
    assert (plan.rho <= rho_max).all()
    assert float(plan.rho @ np.array(cost)) <= budget * (1 + 1e-12) + 1e-300
    wanted = best_value(curve, np.array(cost), budget * (1 + 1e-12), rho_min, rho_max)
    assert float(curve.at(plan.rho).sum()) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


@given(cost=costs, share=st.floats(0, 0.99), rho_min=st.floats(0.1, 0.9))
def test_an_impossible_budget_has_rho_min(cost: list[float], share: float, rho_min: float) -> None:
    least = float(smallest_budget_gco2e(cost, rho_min))
    if least == 0:
        return
    plan = budget_rhos(DEFAULT_UTILITY, cost, least * share, rho_min=rho_min, rho_max=1.0)
    assert not plan.feasible
    assert plan.price_per_gram == np.inf
    assert plan.rho.tolist() == [rho_min if grams else 1.0 for grams in cost]
    assert budget_rhos(DEFAULT_UTILITY, cost, least, rho_min=rho_min, rho_max=1.0).feasible


@given(
    cost=st.lists(st.lists(st.floats(0, 100), min_size=3, max_size=3), min_size=1, max_size=6),
    shares=st.lists(st.floats(0, 1.2), min_size=6, max_size=6),
)
def test_many_budgets_at_once_equal_each_alone(cost: list[list[float]], shares: list[float]) -> None:
    budgets = np.array([sum(row) * share for row, share in zip(cost, shares, strict=False)])
    together = budget_rhos(DEFAULT_UTILITY, [cost], budgets[None], rho_min=0.4, rho_max=1.0)
    assert together.rho.shape == (1, len(cost), 3)
    for row, (grams, budget) in enumerate(zip(cost, budgets, strict=True)):
        alone = budget_rhos(DEFAULT_UTILITY, grams, budget, rho_min=0.4, rho_max=1.0)
        np.testing.assert_allclose(together.rho[0, row], alone.rho, rtol=1e-9)
        assert together.feasible[0, row] == alone.feasible


def test_a_budget_is_spent_to_the_last_gram_where_it_binds() -> None:
    cost = np.random.default_rng(0).uniform(20, 500, (200, 24))
    budget = cost.sum(axis=1) * 0.7
    plan = budget_rhos(DEFAULT_UTILITY, cost, budget, rho_min=0.4, rho_max=1.0)
    np.testing.assert_allclose((plan.rho * cost).sum(axis=1), budget, rtol=1e-12)


def test_epochs_of_equal_cost_have_equal_rho() -> None:
    plan = budget_rhos(DEFAULT_UTILITY, np.full(7, 30.0), 7 * 30 * 0.613, rho_min=0.4, rho_max=1.0)
    assert plan.rho == pytest.approx(0.613)


def test_cleaner_epochs_have_a_higher_rho() -> None:
    plan = budget_rhos(DEFAULT_UTILITY, [100.0, 200.0, 300.0], 400, rho_min=0.4, rho_max=1.0)
    assert plan.rho[0] > plan.rho[1] > plan.rho[2]


def test_the_price_is_the_marginal_value_of_a_gram() -> None:
    cost, budget = np.array([100.0, 200.0, 300.0]), 400.0
    plan = budget_rhos(DEFAULT_UTILITY, cost, budget, rho_min=0.4, rho_max=1.0)
    more = budget_rhos(DEFAULT_UTILITY, cost, budget + 1e-3, rho_min=0.4, rho_max=1.0)
    gained = DEFAULT_UTILITY.at(more.rho).sum() - DEFAULT_UTILITY.at(plan.rho).sum()
    assert float(plan.price_per_gram) == pytest.approx(gained / 1e-3, rel=1e-4)


def test_a_budget_that_does_not_bind_has_price_0_and_rho_max() -> None:
    plan = budget_rhos(DEFAULT_UTILITY, [100.0, 200.0], 300.0, rho_min=0.4, rho_max=1.0)
    assert (plan.rho.tolist(), float(plan.price_per_gram)) == ([1.0, 1.0], 0.0)


@pytest.mark.parametrize("cost", [[1e-310, 2e-310], [1e-12, 1e12], [0.0, 5e-324], [1e300, 1e300]])
def test_costs_of_any_size_are_planned(cost: list[float]) -> None:
    budget = sum(cost) * 0.7
    plan = budget_rhos(DEFAULT_UTILITY, cost, budget, rho_min=0.4, rho_max=1.0)
    assert ((plan.rho >= 0.4) & (plan.rho <= 1)).all()
    assert float(plan.rho @ np.array(cost)) <= budget * (1 + 1e-9) + 5e-324


@pytest.mark.parametrize("cost", [[], [-1.0], [float("nan")], [float("inf")], 3.0])
def test_invalid_costs_are_refused(cost: list[float]) -> None:
    with pytest.raises(ValueError, match="cost_gco2e"):
        budget_rhos(DEFAULT_UTILITY, cost, 1, rho_min=0.4, rho_max=1.0)


def test_a_year_of_starts_takes_well_under_two_seconds() -> None:
    cost = np.random.default_rng(0).uniform(20, 500, (8760, 24))
    began = time.perf_counter()
    budget_rhos(DEFAULT_UTILITY, cost, cost.sum(axis=1) * 0.6, rho_min=0.4, rho_max=1.0)
    assert time.perf_counter() - began < 2


@given(
    curve=curves(),
    loss=st.floats(0.01, 5),
    worth=st.floats(0.1, 500),
    cost=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
    bounds=ranges,
)
def test_price_rho_maximises_worth_less_emissions(
    curve: UtilityCurve, loss: float, worth: float, cost: list[float], bounds: list[float]
) -> None:
    rho_min, rho_max = bounds
    rho = price_rho(curve, loss, cost, worth, rho_min, rho_max)
    u = curve.normalise()
    points = np.array([rho_min, *[r for r in curve.rho if rho_min < r < rho_max], rho_max])
    for share, grams in zip(rho, cost, strict=True):
        best = (worth * loss * u.at(points) - grams * points).max()
        assert worth * loss * u.at(share) - grams * share == pytest.approx(best, rel=1e-6, abs=1e-6)


def test_price_rho_is_rho_max_at_cost_0_and_rho_min_at_worth_0() -> None:
    assert price_rho(DEFAULT_UTILITY, 0.5, [0.0, 1e9], 50, 0.4, 0.9).tolist() == [0.9, 0.4]
    assert price_rho(DEFAULT_UTILITY, -0.1, [0.0, 1.0], 50, 0.4, 0.9).tolist() == [0.9, 0.4]
