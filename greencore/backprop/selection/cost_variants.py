"""Variants of a profile's costs, in each of which it is fixed which conditional costs apply.

Most profiles have one variant. Where training a tensor changes which operators run (`Profile.conditional`), one variant
bars that tensor and one trains it. Tensors that a selection has to train are trained in every variant, and those that
it must not train are barred in all.
"""

import itertools
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from greencore.backprop.cost.profile import Profile, SharedCost
from greencore.backprop.selection.constraints import UNCONSTRAINED, Constraints
from greencore.backprop.selection.decision_order import SearchTree, build_search_tree, iter_set_bits

MAX_CONDITIONS = 3  # searched both ways; further ones keep the unconditional cost, which is never too low


@dataclass(frozen=True)
class CostVariant:
    """Backward FLOPs with the tensors of `forced` trained, for `forced_flops`, and any of `free` in addition."""

    forced: int
    free: int
    forced_flops: int
    exclusive: NDArray[np.int64]
    shared: tuple[SharedCost, ...]

    @cached_property
    def tree(self) -> SearchTree:
        """The search tree of the free tensors, from output to input."""
        return build_search_tree(self.exclusive.tolist(), self.free, self.shared)

    def mask_affordable_values(self, budget: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values of the free tensors that fit within `budget` FLOPs alone; 0 for the others."""
        return np.where(self._free & (self.forced_flops + self._single_tensor_flops <= budget), values, 0.0)

    def compute_marginal_flops(self, chosen: NDArray[np.bool_], candidates: NDArray[np.int64]) -> NDArray[np.int64]:
        """Compute the FLOPs that each candidate would add to the chosen tensors."""
        unpaid = ~self._need_matrix[chosen].any(axis=0)
        needed = self._need_matrix[candidates][:, unpaid]
        added: NDArray[np.int64] = self.exclusive[candidates] + needed @ self._flops[unpaid]
        return added

    def compute_total_flops(self, chosen: NDArray[np.bool_]) -> int:
        """Compute the FLOPs of the chosen tensors, including the forced ones."""
        free = chosen.copy()
        free[list(iter_set_bits(self.forced))] = False
        return self.forced_flops + int(
            self.exclusive[free].sum() + self._flops[self._need_matrix[free].any(axis=0)].sum()
        )

    @cached_property
    def _free(self) -> NDArray[np.bool_]:
        return np.array([self.free >> tensor & 1 for tensor in range(len(self.exclusive))], dtype=np.bool_)

    @cached_property
    def _single_tensor_flops(self) -> NDArray[np.int64]:
        alone: NDArray[np.int64] = self.exclusive + self._need_matrix @ self._flops
        return alone

    @cached_property
    def _need_matrix(self) -> NDArray[np.bool_]:
        return build_need_matrix(self.shared, len(self.exclusive))

    @cached_property
    def _flops(self) -> NDArray[np.int64]:
        return np.array([cost.flops for cost in self.shared], dtype=np.int64)


def build_need_matrix(shared: tuple[SharedCost, ...], tensors: int) -> NDArray[np.bool_]:
    """Build the matrix [tensors, costs] of which shared costs each tensor needs."""
    width = (tensors + 7) // 8
    packed = b"".join(cost.needed_by.to_bytes(width, "little") for cost in shared)
    rows = np.frombuffer(packed, dtype=np.uint8).reshape(len(shared), width)
    return np.unpackbits(rows, axis=1, count=tensors, bitorder="little").T.astype(np.bool_)


def get_variants(profile: Profile, constraints: Constraints = UNCONSTRAINED) -> tuple[CostVariant, ...]:
    """Return the variants of a profile, cached on it since a run selects from it again and again."""
    cached: dict[Constraints, tuple[CostVariant, ...]] = vars(profile).setdefault("_variants", {})
    if constraints not in cached:
        fixed = constraints.always | constraints.never
        single = {cost.when for cost in profile.conditional if cost.when.bit_count() == 1 and not cost.when & fixed}
        conditions = sorted(single)[:MAX_CONDITIONS]
        cached[constraints] = tuple(
            _build_variant(profile, sum(conditions) | fixed, sum(holding) | constraints.always)
            for size in range(len(conditions) + 1)
            for holding in itertools.combinations(conditions, size)
        )
    return cached[constraints]


def list_affordable_variants(
    profile: Profile, values: NDArray[np.float64], budget: int, constraints: Constraints = UNCONSTRAINED
) -> list[CostVariant]:
    """List the variants whose forced tensors fit within `budget` FLOPs and, but for `always`, have a positive value."""
    return [
        v
        for v in get_variants(profile, constraints)
        if v.forced_flops <= budget
        and all(values[tensor] > 0 for tensor in iter_set_bits(v.forced & ~constraints.always))
    ]


def compute_single_tensor_flops(profile: Profile, constraints: Constraints = UNCONSTRAINED) -> NDArray[np.int64]:
    """Compute the backward FLOPs [tensors] of training each tensor with those of `always`, cached on the profile."""
    cached: dict[int, NDArray[np.int64]] = vars(profile).setdefault("_single_tensor_flops", {})
    always = constraints.always
    if always not in cached:
        own = np.array(profile.exclusive, dtype=np.int64)
        needs = build_need_matrix(profile.shared, len(profile.tensors))
        flops = np.array([cost.flops for cost in profile.shared], dtype=np.int64)
        forced = list(iter_set_bits(always))
        paid = needs[forced].any(axis=0)
        total = own + needs[:, ~paid] @ flops[~paid]
        total[forced] = 0
        total += own[forced].sum() + flops[paid].sum()
        for cost in profile.conditional:
            needed, held = always & cost.needed_by, always & cost.when
            if needed and held:
                total += cost.flops
                continue
            adding = cost.when if needed else cost.needed_by if held else cost.needed_by & cost.when
            total[list(iter_set_bits(adding))] += cost.flops
        cached[always] = total
    return cached[always]


def _build_variant(profile: Profile, decided: int, forced: int) -> CostVariant:
    """Build the costs with the tensors of `forced` trained and the other tensors of `decided` barred."""
    costs: dict[int, int] = defaultdict(int)
    for tensor, flops in enumerate(profile.exclusive):
        costs[1 << tensor] = flops
    for cost in profile.shared:
        costs[cost.needed_by] += cost.flops
    for conditional in profile.conditional:
        if conditional.when & forced:
            costs[conditional.needed_by] += conditional.flops
    size = len(profile.tensors)
    shared = {mask: flops for mask, flops in costs.items() if mask.bit_count() > 1 and not mask & forced}
    return CostVariant(
        forced=forced,
        free=(1 << size) - 1 & ~decided,
        forced_flops=sum(flops for mask, flops in costs.items() if mask & forced),
        exclusive=np.array([costs[1 << tensor] for tensor in range(size)], dtype=np.int64),
        shared=tuple(SharedCost(mask, flops) for mask, flops in shared.items() if flops > 0),
    )
