"""Which tensors to train: the most important set that a share of the FLOPs pays for (paper §3.3, exact).

What a selection costs beyond the forward pass is each tensor's own t_dw and, once, every operator that carries the
gradient down to them. The sets of operators that tensors need are nested from the output to the input, except for
parallel branches (query beside key, gate beside up). So the tensors fall into a chain of groups, and within a group
only a few unions of branches are possible. For a fixed union the carrying cost is a constant, and a plain 0/1
knapsack over t_dw remains. It is solved with exact costs, as a frontier of (cost, value) pairs that nothing cheaper
beats, carried from group to group: O(N · frontier) where the paper's recurrence (Eq. 14) takes O(N² · T_q).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from greencore.backprop.profile import Profile

FRONTIER = 1024  # pairs kept; a longer frontier is thinned to the best value in each of so many steps of cost


class BudgetTooSmall(ValueError):
    """ρ leaves room for no tensor at all; `floor` is the smallest share that does."""

    def __init__(self, rho: float, floor: float) -> None:
        super().__init__(
            f"ρ = {rho:g} pays for no tensor: the forward pass and the cheapest gradient take {floor:.4f}"
            " of full fine-tuning's FLOPs"
        )
        self.rho, self.floor = rho, floor


@dataclass(frozen=True)
class Selection:
    """A set of tensors, from output to input, with its summed importance and its exact cost per step."""

    names: tuple[str, ...]
    importance: float
    flops: int
    rho: float


@dataclass(frozen=True)
class _Group:
    """Tensors on one stretch of the chain; `unions` are the carrying costs that some choice among them can need."""

    members: tuple[int, ...]
    needs: tuple[int, ...]
    unions: tuple[int, ...]


@dataclass(frozen=True)
class _Frontier:
    """Pairs of (cost, value), both rising, that some choice among the tensors so far reaches and none beats.

    `parent` and `taken` say which pair of `previous` each came from, and whether `tensor` was added to it.
    """

    cost: NDArray[np.int64]
    value: NDArray[np.float64]
    parent: NDArray[np.int64]
    taken: NDArray[np.bool_]
    tensor: int = -1
    previous: "_Frontier | None" = None

    @classmethod
    def empty(cls) -> "_Frontier":
        zero = np.zeros(1, dtype=np.int64)
        return cls(zero, np.zeros(1), zero, np.zeros(1, dtype=np.bool_))

    def offer(self, tensor: int, cost: int, value: float, *, budget: float) -> "_Frontier":
        """The frontier when one more tensor may be added to each pair, within a budget."""
        within = int(np.searchsorted(self.cost, budget - cost, side="right"))
        costs = np.concatenate([self.cost, self.cost[:within] + cost])
        values = np.concatenate([self.value, self.value[:within] + value])
        order = np.lexsort((-values, costs))
        best = np.maximum.accumulate(values[order])
        keep = order[np.concatenate([[True], best[1:] > best[:-1]])]
        if len(keep) > FRONTIER:
            step = (costs[keep] * (FRONTIER / (budget + 1))).astype(np.int64)
            keep = keep[np.concatenate([step[1:] != step[:-1], [True]])]
        added = keep >= len(self.cost)
        parent = np.where(added, keep - len(self.cost), keep)
        return _Frontier(costs[keep], values[keep], parent, added, tensor, self)

    def best(self, budget: float) -> int:
        """The position of the most valuable pair within a budget."""
        return int(np.searchsorted(self.cost, budget, side="right")) - 1

    def tensors(self, position: int) -> int:
        """The choice behind a pair, as a bit mask."""
        mask, frontier = 0, self
        while frontier.previous is not None:
            if frontier.taken[position]:
                mask |= 1 << frontier.tensor
            position, frontier = int(frontier.parent[position]), frontier.previous
        return mask


def select(profile: Profile, importance: Mapping[str, float], rho: float) -> Selection:
    """The set of tensors of greatest summed importance whose step costs at most `rho * profile.full_flops`.

    `importance` gives a number for every tensor of the profile. A tensor whose update would raise the loss
    (importance <= 0) is never bought, unless nothing else fits. Costs are never rounded. The answer is optimal as
    long as no frontier outgrows 1,024 pairs; a longer one is thinned, and what that leaves free is filled with the
    tensors that still fit. ρ >= 1 trains everything. Raises `BudgetTooSmall`, and `ValueError` for an importance
    that is missing or not a finite number.
    """
    values = [_value(importance, tensor.name) for tensor in profile.tensors]
    if rho >= 1:
        return _selection(profile, values, (1 << len(values)) - 1)
    budget = rho * profile.full_flops - profile.forward_flops
    problem = _Problem(profile, values, budget)
    affordable = [index for index in range(len(values)) if problem.cost(1 << index) <= budget]
    if not affordable:
        raise BudgetTooSmall(rho, profile.floor)
    if not any(values[index] > 0 for index in affordable):
        return _selection(profile, values, 1 << max(affordable, key=lambda index: values[index]))
    return _selection(profile, values, problem.fill(problem.solve()))


def _value(importance: Mapping[str, float], name: str) -> float:
    if name not in importance:
        raise ValueError(f"importance has no entry for {name}")
    value = float(importance[name])
    if not isfinite(value):
        raise ValueError(f"the importance of {name} is {value}, not a finite number")
    return value


def _selection(profile: Profile, values: list[float], mask: int) -> Selection:
    chosen = [index for index in range(len(values)) if mask >> index & 1]
    names = tuple(profile.tensors[index].name for index in chosen)
    flops = profile.step_flops(names)
    return Selection(names, sum(values[index] for index in chosen), flops, flops / profile.full_flops)


class _Problem:
    """One selection problem: a profile's costs, the tensors' values, the FLOPs that the backward pass may take."""

    def __init__(self, profile: Profile, values: list[float], budget: float) -> None:
        self._own = profile.exclusive
        self._shared = [(cost.needed_by, cost.flops) for cost in profile.shared]
        self._values = values
        self._budget = budget

    def cost(self, mask: int) -> int:
        """Backward FLOPs of a selection."""
        own = sum(cost for index, cost in enumerate(self._own) if mask >> index & 1)
        return own + sum(flops for needed_by, flops in self._shared if needed_by & mask)

    def solve(self) -> int:
        """The best selection, as a mask."""
        best_value, best_mask = 0.0, 0
        frontier = _Frontier.empty()
        carrying = _CarryingCost(self._shared)
        for group in _groups(_needs(self._shared, len(self._own))):
            for union in group.unions:
                room = self._budget - carrying.of(union)
                if room < 0:
                    continue
                grown = frontier
                for tensor, needs in zip(group.members, group.needs, strict=True):
                    if needs & ~union == 0 and self._values[tensor] > 0:
                        grown = grown.offer(tensor, self._own[tensor], self._values[tensor], budget=room)
                position = grown.best(room)
                if grown.value[position] > best_value:
                    best_value, best_mask = float(grown.value[position]), grown.tensors(position)
            if room < 0:
                break  # the last union is the whole group's, and every deeper group needs all of it
            frontier = grown
        return best_mask

    def fill(self, mask: int) -> int:
        """Add what still fits exactly, the most important per FLOP first."""
        spent = self.cost(mask)
        left = [index for index, value in enumerate(self._values) if value > 0 and not mask >> index & 1]
        extra = {index: self.cost(mask | 1 << index) - spent for index in left}
        for index in sorted(left, key=lambda i: -self._values[i] / max(extra[i], 1)):
            if extra[index] > self._budget - spent:
                continue
            cost = self.cost(mask | 1 << index)
            if cost <= self._budget:
                mask, spent = mask | 1 << index, cost
        return mask


def _needs(shared: list[tuple[int, int]], tensors: int) -> list[int]:
    """For each tensor, the shared costs that it needs, as a bit mask over `shared`."""
    needs = [0] * tensors
    for bit, (needed_by, _) in enumerate(shared):
        for tensor in _bits(needed_by):
            needs[tensor] |= 1 << bit
    return needs


def _groups(needs: list[int]) -> list[_Group]:
    """Cut the tensors into groups so that whatever a group needs is needed by every deeper group too."""
    order = sorted(range(len(needs)), key=lambda tensor: needs[tensor].bit_count())
    below = [0] * len(order)  # what every tensor from here on needs
    common = -1
    for position in range(len(order) - 1, -1, -1):
        common &= needs[order[position]]
        below[position] = common
    groups, members, so_far, base = [], [], 0, 0
    for position, tensor in enumerate(order):
        members.append(tensor)
        so_far |= needs[tensor]
        last = position == len(order) - 1
        if last or so_far & ~below[position + 1] == 0:
            own = tuple(needs[member] for member in members)
            groups.append(_Group(tuple(members), own, _unions(base, own)))
            members, base = [], so_far
    return groups


def _unions(base: int, needs: tuple[int, ...]) -> tuple[int, ...]:
    """Every union of some of `needs` with `base`, the whole of them last."""
    unions = {base}
    for need in dict.fromkeys(needs):
        unions |= {union | need for union in unions}
    return tuple(sorted(unions, key=lambda union: union.bit_count()))


class _CarryingCost:
    """FLOPs of a set of shared costs, given as a bit mask; the sets asked for grow, so only what is new is added."""

    def __init__(self, shared: list[tuple[int, int]]) -> None:
        self._flops = [flops for _, flops in shared]
        self._set, self._total = 0, 0

    def of(self, union: int) -> int:
        if self._set & ~union:
            self._set, self._total = 0, 0
        for bit in _bits(union & ~self._set):
            self._total += self._flops[bit]
        self._set = union
        return self._total


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
