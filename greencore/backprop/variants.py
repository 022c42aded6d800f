"""A profile's costs as selecting needs them: plain sums, once it is settled which conditions hold.

Most profiles have one variant. Where training a tensor changes how other operators run (`ConditionalCost`), there is
one in which that tensor is barred, and one in which it is trained for certain.
"""

import itertools
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from greencore.backprop.chain import Way, bits, survey
from greencore.backprop.profile import Profile, SharedCost

CONDITIONS = 3  # looked at both ways; further ones are left at the unconditional cost, which is never too low


@dataclass(frozen=True)
class Variant:
    """Backward FLOPs when the tensors of `forced` are trained, for `base`, and others of `free` may be besides."""

    forced: int
    free: int
    base: int
    own: NDArray[np.int64]
    shared: tuple[SharedCost, ...]

    @cached_property
    def way(self) -> Way:
        """The way from output to input on which the free tensors are decided."""
        return survey(self.own.tolist(), self.free, self.shared)

    def within(self, room: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values of the free tensors that fit within `room` FLOPs by themselves; 0 for the others."""
        return np.where(self._free & (self.base + self._alone <= room), values, 0.0)

    def added(self, chosen: NDArray[np.bool_], candidates: NDArray[np.int64]) -> NDArray[np.int64]:
        """FLOPs that each candidate would add to the chosen tensors."""
        unpaid = ~self._needs[chosen].any(axis=0)
        needed = self._needs[candidates][:, unpaid]
        added: NDArray[np.int64] = self.own[candidates] + needed @ self._flops[unpaid]
        return added

    def total(self, chosen: NDArray[np.bool_]) -> int:
        """FLOPs of the chosen tensors, the forced ones among them."""
        free = chosen.copy()
        free[list(bits(self.forced))] = False
        return self.base + int(self.own[free].sum() + self._flops[self._needs[free].any(axis=0)].sum())

    @cached_property
    def _free(self) -> NDArray[np.bool_]:
        return np.array([self.free >> tensor & 1 for tensor in range(len(self.own))], dtype=np.bool_)

    @cached_property
    def _alone(self) -> NDArray[np.int64]:
        alone: NDArray[np.int64] = self.own + self._needs @ self._flops
        return alone

    @cached_property
    def _needs(self) -> NDArray[np.bool_]:
        return needs(self.shared, len(self.own))

    @cached_property
    def _flops(self) -> NDArray[np.int64]:
        return np.array([cost.flops for cost in self.shared], dtype=np.int64)


def needs(shared: tuple[SharedCost, ...], tensors: int) -> NDArray[np.bool_]:
    """Which shared costs each tensor needs, [tensors, costs]."""
    width = (tensors + 7) // 8
    packed = b"".join(cost.needed_by.to_bytes(width, "little") for cost in shared)
    rows = np.frombuffer(packed, dtype=np.uint8).reshape(len(shared), width)
    return np.unpackbits(rows, axis=1, count=tensors, bitorder="little").T.astype(np.bool_)


def variants_of(profile: Profile) -> tuple[Variant, ...]:
    """The variants of a profile; they are kept with it, since a run selects from it again and again."""
    kept: tuple[Variant, ...] | None = vars(profile).get("_variants")
    if kept is None:
        conditions = sorted({cost.when for cost in profile.conditional if cost.when.bit_count() == 1})[:CONDITIONS]
        kept = tuple(
            _variant(profile, sum(conditions), sum(holding))
            for size in range(len(conditions) + 1)
            for holding in itertools.combinations(conditions, size)
        )
        vars(profile)["_variants"] = kept
    return kept


def wanted_variants(profile: Profile, values: NDArray[np.float64], room: int) -> list[Variant]:
    """The variants whose forced tensors fit within `room` FLOPs, and are each worth having."""
    return [v for v in variants_of(profile) if v.base <= room and all(values[tensor] > 0 for tensor in bits(v.forced))]


def alone(profile: Profile) -> NDArray[np.int64]:
    """Backward FLOPs [tensors] of training each tensor by itself; kept with the profile."""
    kept: NDArray[np.int64] | None = vars(profile).get("_alone")
    if kept is None:
        flops = np.array([cost.flops for cost in profile.shared], dtype=np.int64)
        kept = np.array(profile.exclusive, dtype=np.int64) + needs(profile.shared, len(profile.tensors)) @ flops
        for cost in profile.conditional:
            for tensor in bits(cost.when & cost.needed_by):
                kept[tensor] += cost.flops
        vars(profile)["_alone"] = kept
    return kept


def _variant(profile: Profile, conditions: int, holding: int) -> Variant:
    """The costs while the tensors of `holding` are trained, and those of `conditions` besides are not."""
    costs: dict[int, int] = defaultdict(int)
    for tensor, flops in enumerate(profile.exclusive):
        costs[1 << tensor] = flops
    for cost in profile.shared:
        costs[cost.needed_by] += cost.flops
    for conditional in profile.conditional:
        if conditional.when & holding:
            costs[conditional.needed_by] += conditional.flops
    size = len(profile.tensors)
    shared = {mask: flops for mask, flops in costs.items() if mask.bit_count() > 1 and not mask & holding}
    return Variant(
        forced=holding,
        free=(1 << size) - 1 & ~conditions,
        base=sum(flops for mask, flops in costs.items() if mask & holding),
        own=np.array([costs[1 << tensor] for tensor in range(size)], dtype=np.int64),
        shared=tuple(SharedCost(mask, flops) for mask, flops in shared.items() if flops > 0),
    )
