"""Optimal ρ under a budget of gCO2e, spread over epochs by one price per gram, and under a given price."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from greencore.arrays import Bools, Floats, Ints
from greencore.concave_curve import count_worthwhile_segments
from greencore.policy.rho.utility import SHORTEST_SEGMENT, UtilityCurve

# Maps ρ [runs, epochs] of epochs that run back to back to their emissions in gCO2e at ρ = 1, of the same shape.
EpochCosts = Callable[[Floats], Floats]

# An epoch's cost depends on its length and so on its ρ, which depends on the cost: the fixed point is iterated.
FIXED_POINT_ITERATIONS = 3
BISECTION_STEPS = 40
# Rounding error of a sum of many costs, relative to the budget.
ROUNDING = 1e-9
NARROWEST = 1e-13  # relative width of a bracket of prices, below which both ends cost the same
NEGLIGIBLE = 1e-12  # cost of an epoch, relative to the most expensive one


@dataclass(frozen=True)
class BudgetPlan:
    """ρ of each epoch [..., epochs], and the price per gram.

    `price_per_gram` [...] is the marginal value of a gram in the curve's unit: 0 where the budget does not bind,
    infinite where it is not `feasible` [...].
    """

    rho: Floats
    price_per_gram: Floats
    feasible: Bools


def budget_rhos(
    curve: UtilityCurve, cost_gco2e: ArrayLike, budget_gco2e: ArrayLike, *, rho_min: float, rho_max: float
) -> BudgetPlan:
    """Maximise Σ value(ρ_e) subject to Σ cost_e · ρ_e <= budget and rho_min <= ρ_e <= rho_max.

    `cost_gco2e` [..., epochs] are the emissions of each epoch at ρ = 1, in gCO2e, at least 0; `budget_gco2e` [...]. At
    the optimum all epochs pay one price λ per gram: value′(ρ_e) = λ · cost_e, found by bisection; the epochs that tie
    at λ share what is left between two points of the curve. A budget above the cost of `rho_max` gives `rho_max`
    throughout, one below that of `rho_min` gives `rho_min`; an epoch that costs nothing always has `rho_max`. Raises
    ValueError where a cost or a ρ is out of range.
    """
    cost = np.asarray(cost_gco2e, dtype=np.float64)
    if cost.ndim == 0 or cost.shape[-1] == 0:
        raise ValueError(f"cost_gco2e has the shape {cost.shape}: expected one figure per epoch, at least one")
    if not (np.isfinite(cost).all() and (cost >= 0).all()):
        raise ValueError("cost_gco2e: expected finite numbers that are at least 0")
    budget = np.broadcast_to(np.asarray(budget_gco2e, dtype=np.float64), cost.shape[:-1])
    rho, slopes = _points(curve, rho_min, rho_max)
    rows, limit = cost.reshape(-1, cost.shape[-1]), budget.reshape(-1)
    feasible = smallest_budget_gco2e(rows, rho_min) <= limit + ROUNDING * np.abs(limit)
    plenty = rows.sum(axis=1) * rho_max <= limit
    chosen = np.where((rows == 0) | plenty[:, None], rho_max, rho_min)
    price = np.where(feasible, 0.0, np.inf)
    binding = np.flatnonzero(feasible & ~plenty)
    if len(binding):
        chosen[binding], price[binding] = _bisect(rho, slopes, rows[binding], limit[binding])
    return BudgetPlan(chosen.reshape(cost.shape), price.reshape(budget.shape), feasible.reshape(budget.shape))


def smallest_budget_gco2e(cost_gco2e: ArrayLike, rho_min: float) -> Floats:
    """Return the emissions at `rho_min` in gCO2e [...] of epochs that cost `cost_gco2e` [..., epochs] at ρ = 1."""
    least: Floats = np.asarray(cost_gco2e, dtype=np.float64).sum(axis=-1) * rho_min
    return least


def price_rho(
    curve: UtilityCurve,
    loss_per_epoch: float,
    cost_gco2e: ArrayLike,
    gco2e_per_loss: float,
    rho_min: float,
    rho_max: float,
) -> Floats:
    """Maximise gco2e_per_loss · loss_per_epoch · u(ρ) − cost · ρ over ρ, for each cost in gCO2e at ρ = 1.

    u is `curve` scaled to 1 at ρ = 1, `loss_per_epoch` the expected decrease of the loss by an epoch at ρ = 1 (a
    negative one counts as 0). Returns the smallest maximiser, and `rho_max` where the cost is 0; the shape of
    `cost_gco2e`.
    """
    cost = np.asarray(cost_gco2e, dtype=np.float64)
    worth_gco2e, u = gco2e_per_loss * max(loss_per_epoch, 0.0), curve.normalise()
    rho, slopes = _points(UtilityCurve(u.rho, u.value * worth_gco2e), rho_min, rho_max)
    return np.asarray(rho[count_worthwhile_segments(slopes, cost)])


@dataclass(frozen=True)
class BudgetRho:
    """ρ [runs] of the epoch that starts under a budget, and the plan that it belongs to.

    `rho_limit` [runs] is the highest ρ that is within the budget and leaves the later epochs `rho_min`; `ends` [runs]:
    even `rho_min` exceeds the budget, by which the epoch would emit `least_gco2e` [runs]. `cost_gco2e` [runs, epochs]
    are the emissions at ρ = 1.
    """

    rho: Floats
    rho_limit: Floats
    ends: Bools
    least_gco2e: Floats
    cost_gco2e: Floats
    plan: BudgetPlan


def choose_budget_rho(
    curve: UtilityCurve,
    costs: EpochCosts,
    remaining_gco2e: Floats,
    epochs_left: Ints,
    *,
    budget_gco2e: float,
    rho_min: float,
    rho_max: float,
) -> BudgetRho:
    """Choose ρ of the epoch that starts, for runs with `remaining_gco2e` of the budget for `epochs_left` (both [runs]).

    The plan over all epochs left is solved as in `budget_rhos`, with the costs at its own ρ.
    """
    runs = len(remaining_gco2e)
    least = _first_cost(costs, np.full(runs, rho_min)) * rho_min
    exists = np.arange(epochs_left.max()) < epochs_left[:, None]  # in the rectangle of all runs' epochs
    rho = np.full(exists.shape, rho_max)
    for _ in range(FIXED_POINT_ITERATIONS):
        cost = costs(rho) * exists
        plan = budget_rhos(curve, cost, remaining_gco2e, rho_min=rho_min, rho_max=rho_max)
        rho = plan.rho
    left = remaining_gco2e - smallest_budget_gco2e(cost[:, 1:], rho_min)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # where `left` is plenty
        limit = np.where(left >= cost[:, 0] * rho_max, rho_max, np.maximum(rho_min, left / cost[:, 0]))
    limit = np.where(plan.feasible, _max_affordable_rho(costs, limit, remaining_gco2e, rho_min), rho_min)
    return BudgetRho(
        rho=np.where(plan.feasible, np.minimum(rho[:, 0], limit), rho_min),
        rho_limit=limit,
        ends=least > remaining_gco2e + budget_gco2e * ROUNDING,
        least_gco2e=least,
        cost_gco2e=cost,
        plan=plan,
    )


def choose_price_rho(
    curve: UtilityCurve,
    costs: EpochCosts,
    runs: int,
    *,
    loss_per_epoch: float,
    gco2e_per_loss: float,
    rho_min: float,
    rho_max: float,
) -> tuple[Floats, Floats]:
    """Choose ρ [runs] of the epoch that starts as `price_rho` does; return it with the cost at ρ = 1 [runs]."""
    rho = np.full(runs, rho_max)
    for _ in range(FIXED_POINT_ITERATIONS):
        cost = _first_cost(costs, rho)
        rho = price_rho(curve, loss_per_epoch, cost, gco2e_per_loss, rho_min, rho_max)
    return rho, cost


def _first_cost(costs: EpochCosts, rho: Floats) -> Floats:
    """Cost in gCO2e at ρ = 1 [runs] of the first epoch alone."""
    return costs(rho[:, None])[:, 0]


def _max_affordable_rho(costs: EpochCosts, high: Floats, remaining_gco2e: Floats, rho_min: float) -> Floats:
    """Return the highest ρ [runs] up to `high` whose epoch is within the budget.

    `high` follows from a mean over nearly the same length, so that it may cost a little more than what remains.
    """
    fits = _first_cost(costs, high) * high <= remaining_gco2e
    if fits.all():
        return high
    low, top = np.full(len(high), rho_min), high
    for _ in range(BISECTION_STEPS):
        middle = (low + top) / 2
        within = _first_cost(costs, middle) * middle <= remaining_gco2e
        low, top = np.where(within, middle, low), np.where(within, top, middle)
    return np.where(fits, high, low)


def _points(curve: UtilityCurve, rho_min: float, rho_max: float) -> tuple[Floats, Floats]:
    """Return the curve's points within a range, and the slopes between them; one point for a range without width."""
    if not 0 < rho_min <= rho_max <= 1:
        raise ValueError(f"given ρ from {rho_min:g} to {rho_max:g}: expected a range within (0, 1]")
    if rho_max - rho_min < SHORTEST_SEGMENT * 2:
        return np.array([rho_min]), np.empty(0)
    within = curve.clip(rho_min, rho_max)
    return within.rho, within.slopes


def _bisect(rho: Floats, slopes: Floats, cost: Floats, budget: Floats) -> tuple[Floats, Floats]:
    """Bisect the price [rows], and return it with ρ [rows, epochs]; the budget is between the costs at both bounds.

    The ends of the bracket are points of the curve: `dear` at a price that keeps the budget, `cheap` at one that
    exceeds it. It narrows until only epochs that tie differ.
    """
    scale = cost.max(axis=1)
    cost, budget = cost / scale[:, None], budget / scale
    least_cost = np.where(cost > NEGLIGIBLE, cost, 1.0).min(axis=1)
    worthwhile = slopes[slopes > 0]
    dear = np.where(cost == 0, len(slopes), 0)
    cheap = np.full_like(dear, len(slopes))
    if len(worthwhile):
        high = worthwhile[0] / least_cost * (1 + ROUNDING)
        low = np.full_like(high, worthwhile[-1] * (1 - ROUNDING))
        lowest = count_worthwhile_segments(slopes, low[:, None] * cost)
        keeps = (rho[lowest] * cost).sum(axis=1) <= budget
        # Above `lowest` more FLOPs have no value.
        dear[keeps], cheap[~keeps] = lowest[keeps], lowest[~keeps]
        rows = np.flatnonzero(~keeps)
        while len(rows):
            middle = np.sqrt(low[rows] * high[rows])
            point = count_worthwhile_segments(slopes, middle[:, None] * cost[rows])
            fits = (rho[point] * cost[rows]).sum(axis=1) <= budget[rows]
            dear[rows[fits]], high[rows[fits]] = point[fits], middle[fits]
            cheap[rows[~fits]], low[rows[~fits]] = point[~fits], middle[~fits]
            apart = (cheap[rows] - dear[rows]).sum(axis=1) > 1
            rows = rows[apart & (high[rows] > low[rows] * (1 + NARROWEST))]
    spent = (rho[dear] * cost).sum(axis=1)
    between = ((rho[cheap] - rho[dear]) * cost).sum(axis=1)
    share = np.divide(np.maximum(budget - spent, 0.0), between, out=np.zeros_like(between), where=between > 0)
    chosen = rho[dear] + (rho[cheap] - rho[dear]) * np.minimum(share, 1.0)[:, None]
    with np.errstate(over="ignore"):  # the price of less than 1e-300 gCO2e may be infinite
        price = _marginal(slopes, dear, cheap, cost) / scale
    return chosen, price


def _marginal(slopes: Floats, dear: Ints, cheap: Ints, cost: Floats) -> Floats:
    """Return the highest value per unit of cost between the bracket's ends [rows]; 0 where they are equal."""
    if not len(slopes):
        return np.zeros(len(cost))
    next_slope = slopes[np.minimum(dear, len(slopes) - 1)]
    per_cost = np.divide(next_slope, cost, out=np.zeros_like(cost), where=(cheap > dear) & (cost > NEGLIGIBLE))
    highest: Floats = per_cost.max(axis=1)
    return highest
