"""Select the most important tensors within a share of full fine-tuning's FLOPs (paper §3.3, exact).

Beyond the forward pass a selection costs each tensor's own t_dw and, once, every operator that carries the gradient
down to them. From output to input (`decision_order`) the cost of carrying the gradient so far is a constant for every
deeper selection, so a plain 0/1 knapsack over t_dw remains. Its Pareto frontier is extended with exact costs
(`knapsack`), and at each depth gives the best selection that stops there (`search`): O(N · pairs) where the paper's
recurrence (Eq. 14) takes O(N² · T_q). Partial selections that cannot reach the best are pruned (`bounds`), which leaves
few pairs and bounds the distance of any answer from the optimum.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import floor, isfinite

import numpy as np
from numpy.typing import NDArray

from greencore.backprop.cost.profile import Profile
from greencore.backprop.selection.bounds import LagrangianBounds
from greencore.backprop.selection.constraints import UNCONSTRAINED, Constraints
from greencore.backprop.selection.cost_variants import (
    CostVariant,
    compute_single_tensor_flops,
    list_affordable_variants,
)
from greencore.backprop.selection.decision_order import iter_set_bits
from greencore.backprop.selection.knapsack import ParetoFrontier
from greencore.backprop.selection.search import enumerate_candidates

FRONTIER_LIMITS = (1024, 4096, 16384)  # pairs kept at most; the next limit is tried where the optimum is not proven
TOLERANCE = 0.001  # of the importance: an answer proven to be closer to the optimum is accepted


class BudgetTooSmall(ValueError):
    """ρ is too small to train any tensor, or all that have to be trained (`always`); `floor` is the smallest ρ.

    `charge` is the part of the floor that a probe takes, where probes are charged to the budget.
    """

    def __init__(self, rho: float, floor: float, *, always: bool = False, charge: float = 0.0) -> None:
        what, gradients = ("any tensor", "the cheapest gradient")
        if always:
            what, gradients = ("the tensors that are always trained", "their gradients")
        work = f"the forward pass and {gradients}"
        if charge:
            work = f"the forward pass, {gradients} and the charged probes ({charge:.4f})"
        super().__init__(f"ρ = {rho:g} is too small for {what}: {work} take {floor:.4f} of full fine-tuning's FLOPs")
        self.rho, self.floor, self.always = rho, floor, always

    def charged(self, rho: float, charge: float) -> "BudgetTooSmall":
        """Return the error for `rho` of which a probe takes the share `charge`."""
        return BudgetTooSmall(rho, self.floor + charge, always=self.always, charge=charge)


@dataclass(frozen=True)
class Selection:
    """A set of tensors, from output to input, with its summed importance and its exact cost per step."""

    names: tuple[str, ...]
    importance: float
    flops: int
    rho: float


def select(
    profile: Profile,
    importance: Mapping[str, float],
    rho: float,
    *,
    always: Collection[str] = (),
    never: Collection[str] = (),
) -> Selection:
    """Select the tensors of greatest summed importance whose step costs at most `rho * profile.full_flops`.

    `importance` has a number for every tensor that fits within ρ alone; it may lack the others, which no probe needs to
    reach (Eq. 12). A tensor whose update would raise the loss (importance <= 0) is never selected, unless nothing else
    fits. Costs are never rounded, so no answer exceeds the budget. The answer is the optimum while no more than
    `FRONTIER_LIMITS` pairs are open at a time, else proven to be within `TOLERANCE` of it, or the best found with the
    largest limit; tensors that still fit fill the rest of the budget. ρ >= 1 trains everything.

    The tensors of `always` are in the selection whatever their importance, which may be missing and then counts as 0;
    the answer is the best set that holds them and none of `never`, in the same sense. Raises `BudgetTooSmall` with the
    floor under these constraints, which those of `always` have to fit alone; `ValueError` for an importance that is
    missing or not a finite number, for a tensor that is in both and where no tensor is left; and `KeyError` for an
    unknown name in either.
    """
    constraints = Constraints.of(profile, always=always, never=never)
    return select_with_bound(profile, importance, rho, constraints)[0]


def select_with_bound(
    profile: Profile, importance: Mapping[str, float], rho: float, constraints: Constraints = UNCONSTRAINED
) -> tuple[Selection, float]:
    """Return `select`'s answer and an upper bound within ρ: its own importance where it is proven optimal."""
    budget = profile.full_flops if rho >= 1 else floor(rho * profile.full_flops) - profile.forward_flops
    fits = find_fitting_tensors(profile, budget, constraints)
    values = build_value_array(profile, importance, fits)
    names = [tensor.name for tensor in profile.tensors]
    if rho >= 1:
        everything = build_selection(profile, importance, constraints.list_trainable(profile))
        return everything, everything.importance
    always = constraints.list_always(profile)
    if always and profile.step_flops(always) - profile.forward_flops > budget:
        raise BudgetTooSmall(rho, constraints.compute_floor(profile), always=True)
    if not always and not fits.any():
        raise BudgetTooSmall(rho, constraints.compute_floor(profile))
    best_alone = int(np.where(fits, values, -np.inf).argmax())
    single = build_selection(profile, importance, always or [names[best_alone]])
    if not fits[best_alone] or values[best_alone] <= 0:
        return single, single.importance
    variants = list_affordable_variants(profile, values, budget, constraints)
    found = [_search_variant(variant, variant.mask_affordable_values(budget, values), budget) for variant in variants]
    selections = [build_selection(profile, importance, [names[t] for t in iter_set_bits(mask)]) for mask, _ in found]
    chosen = max([single, *selections], key=lambda selection: selection.importance)
    bounds = [
        bound + sum(values[t] for t in iter_set_bits(v.forced)) for v, (_, bound) in zip(variants, found, strict=True)
    ]
    return chosen, max(chosen.importance, *bounds)


def find_fitting_tensors(profile: Profile, budget: int, constraints: Constraints) -> NDArray[np.bool_]:
    """Find the tensors [tensors] that are left to choose and fit within `budget` backward FLOPs beside `always`."""
    decided = constraints.always | constraints.never
    open_ = np.array([not decided >> tensor & 1 for tensor in range(len(profile.tensors))], dtype=np.bool_)
    fitting: NDArray[np.bool_] = open_ & (compute_single_tensor_flops(profile, constraints) <= budget)
    return fitting


def build_selection(profile: Profile, importance: Mapping[str, float], names: Collection[str]) -> Selection:
    """Build the selection of the named tensors; importance that is missing counts as 0."""
    chosen = set(names)
    ordered = tuple(tensor.name for tensor in profile.tensors if tensor.name in chosen)
    flops = profile.step_flops(ordered)
    total = sum(float(importance.get(name, 0.0)) for name in ordered)
    return Selection(ordered, total, flops, flops / profile.full_flops)


def build_value_array(
    profile: Profile, importance: Mapping[str, float], wanted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Build the importance [tensors], 0 where missing and not `wanted`. Raises `ValueError` as `select` does."""
    values = np.zeros(len(profile.tensors))
    for index, tensor in enumerate(profile.tensors):
        if tensor.name in importance:
            values[index] = float(importance[tensor.name])
        elif wanted[index]:
            raise ValueError(f"importance has no entry for {tensor.name}")
    for tensor, value in zip(profile.tensors, values.tolist(), strict=True):
        if not isfinite(value):
            raise ValueError(f"the importance of {tensor.name} is {value}, not a finite number")
    return values


def _search_variant(variant: CostVariant, values: NDArray[np.float64], budget: int) -> tuple[int, float]:
    """Return the best selection, as a mask, and an upper bound of the importance of its free tensors."""
    bounds = LagrangianBounds(variant.tree, values, budget - variant.forced_flops)
    target = bounds.lower_bound
    best, found = -1.0, 0
    for limit in FRONTIER_LIMITS:
        frontier = ParetoFrontier.empty(limit)
        pruning = bounds.prune_below(target)
        for candidates in enumerate_candidates(variant.tree, values, pruning, frontier, variant.forced_flops):
            pairs = candidates.frontier.cost.searchsorted(budget - candidates.cost, side="right") - 1
            totals = np.where(pairs >= 0, candidates.frontier.value[pairs] + candidates.value, -1.0)
            subset = int(totals.argmax())
            if totals[subset] > best:
                best, found = float(totals[subset]), candidates.selected_mask(subset, int(pairs[subset]))
        if not frontier.thinned or best >= bounds.upper_bound * (1 - TOLERANCE):
            break
        target = max(target, best)
    return _fill_budget(
        variant.forced | found, variant, values, budget
    ), bounds.upper_bound if frontier.thinned else best


def _fill_budget(mask: int, variant: CostVariant, values: NDArray[np.float64], budget: int) -> int:
    """Add tensors that still fit exactly, the most important per FLOP first."""
    chosen = np.array([mask >> tensor & 1 for tensor in range(len(values))], dtype=np.bool_)
    left = budget - variant.compute_total_flops(chosen)
    while True:
        candidates = np.flatnonzero((values > 0) & ~chosen & (variant.exclusive <= left))
        added = variant.compute_marginal_flops(chosen, candidates)
        fitting = added <= left
        if not fitting.any():
            return sum(1 << int(tensor) for tensor in np.flatnonzero(chosen))
        rate = np.where(fitting, values[candidates] / np.maximum(added, 1), -1.0)
        taken = int(rate.argmax())
        chosen[candidates[taken]] = True
        left -= int(added[taken])
