"""Importance curve: the greatest importance within every budget at once, for planners of ρ."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import floor

import numpy as np
from numpy.typing import NDArray

from greencore.backprop.cost.profile import Profile
from greencore.backprop.selection.bounds import LagrangianBounds
from greencore.backprop.selection.constraints import Constraints
from greencore.backprop.selection.cost_variants import (
    CostVariant,
    compute_single_tensor_flops,
    list_affordable_variants,
)
from greencore.backprop.selection.decision_order import iter_set_bits
from greencore.backprop.selection.knapsack import ParetoFrontier, find_undominated
from greencore.backprop.selection.search import enumerate_candidates
from greencore.backprop.selection.select_tensors import BudgetTooSmall, build_value_array, find_fitting_tensors
from greencore.concave_curve import find_concave_hull

FRONTIER_LIMIT = 4096  # pairs kept in each band
BUDGET_BANDS = 6  # each with half the FLOPs of the next, so that small budgets are resolved as finely as large ones
MERGE_THRESHOLD = 1 << 18  # points gathered before dominated ones are dropped

Points = tuple[NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True)
class ConcaveCurve:
    """Upper concave hull of an `ImportanceCurve`: `importance` at the shares `rho`, linear in between."""

    rho: NDArray[np.float64]
    importance: NDArray[np.float64]


@dataclass(frozen=True)
class ImportanceCurve:
    """Greatest importance for each share of full fine-tuning's FLOPs: from `rho[i]` on, `importance[i]`.

    Both rise; `rho` [points] starts at the floor. Every point is reachable: some set of tensors has this importance at
    this cost, so `select` at `rho[i]` finds it, up to its own tolerance of 0.1 %.
    """

    rho: NDArray[np.float64]
    importance: NDArray[np.float64]

    def at(self, rho: float) -> float:
        """Return the greatest importance within a share. Raises `BudgetTooSmall` below the first point."""
        point = int(np.searchsorted(self.rho, rho, side="right")) - 1
        if point < 0:
            raise BudgetTooSmall(rho, float(self.rho[0]))
        return float(self.importance[point])

    def concave_hull(self) -> ConcaveCurve:
        """Return the upper concave hull, from the floor to the last point that adds importance."""
        hull = find_concave_hull(self.rho, self.importance, range(len(self.rho)))
        return ConcaveCurve(self.rho[hull], self.importance[hull])


def importance_curve(
    profile: Profile,
    importance: Mapping[str, float],
    *,
    up_to: float = 1.0,
    always: Collection[str] = (),
    never: Collection[str] = (),
) -> ImportanceCurve:
    """Compute the greatest importance for every share of the FLOPs from the floor to `up_to` (paper Eq. 13–15).

    `importance`, `always` and `never` are as `select` takes them at ρ = `up_to`; a tensor of importance <= 0 counts
    only where nothing else fits. The search is that of `select`, run once for all budgets. It is exact while no more
    than `FRONTIER_LIMIT` pairs are open at a time; beyond, a budget is resolved to a thousandth of its size or finer,
    which stayed within 0.2 % of `select` on every model measured (`benchmarks/training/selector.py`). Raises
    `BudgetTooSmall` where `up_to` is below the floor, and `ValueError` as `select` does.
    """
    budget = floor(min(up_to, 1.0) * profile.full_flops) - profile.forward_flops
    constraints = Constraints.of(profile, always=always, never=never)
    single = compute_single_tensor_flops(profile, constraints)
    fits = find_fitting_tensors(profile, budget, constraints)
    values = build_value_array(profile, importance, fits)
    if (at_least := constraints.compute_floor(profile)) > up_to:
        raise BudgetTooSmall(up_to, at_least, always=bool(always))
    if constraints.always:
        forced = list(iter_set_bits(constraints.always))
        points = single[forced[:1]], values[forced].sum(keepdims=True)
    else:
        points = _merge_undominated([(single[fits], values[fits])])
    for band in range(BUDGET_BANDS):
        within = budget >> band
        for variant in list_affordable_variants(profile, values, within, constraints):
            points = _merge_undominated([points, _list_variant_points(variant, values, within, constraints)])
    flops = points[0] + profile.forward_flops
    rho = flops / profile.full_flops
    short = np.floor(rho * profile.full_flops) < flops
    return ImportanceCurve(np.where(short, np.nextafter(rho, 2.0), rho), points[1])


def _list_variant_points(
    variant: CostVariant, values: NDArray[np.float64], budget: int, constraints: Constraints
) -> Points:
    """List the backward FLOPs and importance of a variant's selections."""
    forced = sum(float(values[tensor]) for tensor in iter_set_bits(variant.forced))
    values = variant.mask_affordable_values(budget, values)
    everything = LagrangianBounds(variant.tree, values, budget - variant.forced_flops).prune_below(-1.0)
    gathered: list[Points] = []
    size = 0
    for candidates in enumerate_candidates(
        variant.tree, values, everything, ParetoFrontier.empty(FRONTIER_LIMIT), variant.forced_flops
    ):
        for subset in find_undominated(candidates.cost, candidates.value).tolist():
            cost = candidates.frontier.cost + candidates.cost[subset]
            fitting = int(cost.searchsorted(budget, side="right"))
            gathered.append((cost[:fitting], candidates.frontier.value[:fitting] + (candidates.value[subset] + forced)))
            size += fitting
        if size > MERGE_THRESHOLD:
            gathered, size = [_merge_undominated(gathered)], 0
    cost, value = _merge_undominated(gathered)
    if constraints.always:
        return cost, value
    trained = value > 0  # drops the empty selection
    return cost[trained], value[trained]


def _merge_undominated(gathered: list[Points]) -> Points:
    """Merge points and drop those that a cheaper one matches; by rising cost."""
    cost, value = (np.concatenate(parts) for parts in zip(*gathered, strict=True))
    keep = find_undominated(cost, value)
    return cost[keep], value[keep]
