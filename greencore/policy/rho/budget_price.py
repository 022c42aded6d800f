"""Spreads a budget of gCO2e over epochs by one price per gram; and ρ where that price is given."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from greencore.policy.rho.utility import SHORTEST_SEGMENT, UtilityCurve, count_worthwhile_segments

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# A sum of many costs may come out this much, relative to the budget, above what it was planned to be.
ROUNDING = 1e-9
NARROWEST = 1e-13  # a bracket of prices, relative: what is left between its ends costs the same
NEGLIGIBLE = 1e-12  # the cost of an epoch, relative to the dearest one


@dataclass(frozen=True)
class BudgetPlan:
    """ρ of each epoch [..., epochs], and the price behind it.

    `price_per_gram` [...] is the value, in the curve's unit, that the last gram brings: 0 where the budget does not
    bind, infinite where it is not `feasible` [...].
    """

    rho: Floats
    price_per_gram: Floats
    feasible: NDArray[np.bool_]


def budget_rhos(
    curve: UtilityCurve, cost_gco2e: ArrayLike, budget_gco2e: ArrayLike, *, rho_min: float, rho_max: float
) -> BudgetPlan:
    """Maximises Σ value(ρ_e) subject to Σ cost_e · ρ_e <= budget and rho_min <= ρ_e <= rho_max.

    `cost_gco2e` [..., epochs] is what each epoch emits at ρ = 1, in gCO2e, at least 0; `budget_gco2e` [...]. The
    optimum buys each epoch's ρ at one price λ per gram: value′(ρ_e) = λ · cost_e, found by bisection; what is left
    between two points of the curve is shared by the epochs that tie at λ. A budget that leaves something over at
    `rho_max` gives `rho_max` throughout, one that is too small even for `rho_min` gives `rho_min`; an epoch that costs
    nothing has `rho_max` in any case. Raises ValueError where a cost or a ρ is out of range.
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
    """What epochs that cost `cost_gco2e` [..., epochs] at ρ = 1 emit at the least, in gCO2e [...]."""
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
    """The ρ that maximises gco2e_per_loss · loss_per_epoch · u(ρ) − cost · ρ, for each cost in gCO2e at ρ = 1.

    u is `curve` scaled to 1 at ρ = 1, `loss_per_epoch` what an epoch at ρ = 1 is expected to take off the loss
    (nothing where negative). Of equals it is the smaller ρ, and `rho_max` where the cost is 0; the shape of
    `cost_gco2e`.
    """
    cost = np.asarray(cost_gco2e, dtype=np.float64)
    worth_gco2e = gco2e_per_loss * max(loss_per_epoch, 0.0)
    rho, slopes = _points(curve.normalise().scale(worth_gco2e), rho_min, rho_max)
    return np.asarray(rho[count_worthwhile_segments(slopes, cost)])


def _points(curve: UtilityCurve, rho_min: float, rho_max: float) -> tuple[Floats, Floats]:
    """The curve's points within a range, and the slopes between them; one point where the range has no width."""
    if not 0 < rho_min <= rho_max <= 1:
        raise ValueError(f"given ρ from {rho_min:g} to {rho_max:g}: expected a range within (0, 1]")
    if rho_max - rho_min < SHORTEST_SEGMENT * 2:
        return np.array([rho_min]), np.empty(0)
    within = curve.clip(rho_min, rho_max)
    return within.rho, within.slopes


def _bisect(rho: Floats, slopes: Floats, cost: Floats, budget: Floats) -> tuple[Floats, Floats]:
    """ρ [rows, epochs] and the price [rows], where the budget is too small for all and large enough for the least.

    The bracket's ends are kept as points of the curve: `dear` at a price that keeps the budget, `cheap` at one that
    exceeds it. They draw together until only epochs that tie differ.
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
        # Beyond `lowest` more FLOPs bring nothing.
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
    """The value per unit of cost of what lies between the bracket's ends [rows]; 0 where nothing does."""
    if not len(slopes):
        return np.zeros(len(cost))
    next_slope = slopes[np.minimum(dear, len(slopes) - 1)]
    per_cost = np.divide(next_slope, cost, out=np.zeros_like(cost), where=(cheap > dear) & (cost > NEGLIGIBLE))
    highest: Floats = per_cost.max(axis=1)
    return highest
