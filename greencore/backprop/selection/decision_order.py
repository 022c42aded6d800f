"""Search tree of the selection: the order, from output to input, in which tensors are decided.

A backward operator is paid for once if any tensor beyond it is trained. From block to block the operators that tensors
need are nested: a deeper selection pays for the whole of the blocks above. Where branches run side by side (query, key
and value), only a selection that stops within them can leave a branch out. So tensors are cut into stretches such that
each operator used so far is needed by everything deeper, or by nothing deeper.

A branch may also be joined much later: the keys of every cross-attention lead to the encoder. There the tree forks in
two: either no tensor beyond the branch is trained, or its operators are paid for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from greencore.backprop.cost.profile import SharedCost

MAX_STRETCH_TENSORS = 10  # tensors in a stretch whose subsets are all enumerated; a wider one forks
MAX_FORKS = 64  # forks that are searched both ways; after that a branch is always paid for, which costs optimality


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that are decided together, since they share operators that serve no others.

    `cost` [2^members] is the FLOPs of each subset; bit k of a subset is `members[k]`.
    """

    members: tuple[int, ...]
    cost: NDArray[np.int64]


@dataclass(frozen=True)
class StopPoint:
    """A place where a selection may end: after `after` groups of the tree, with any subset of `members` on top.

    `cost` [2^members] is the FLOPs of each subset, as in `TensorGroup`, and of carrying the gradient down to here.
    """

    after: int
    members: tuple[int, ...]
    cost: NDArray[np.int64]


@dataclass(frozen=True)
class SearchTree:
    """Groups from output to input, the stop points between them, and the FLOPs that carry the gradient to its end.

    At its end it may fork into subtrees, each with FLOPs to pay on entry.
    """

    groups: tuple[TensorGroup, ...]
    stop_points: tuple[StopPoint, ...]
    carry_flops: int
    subtrees: tuple[tuple[int, "SearchTree"], ...] = ()

    @cached_property
    def single_tensor_groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Positions, tensors and costs of the groups of a single tensor."""
        alone = [(k, c.members[0], int(c.cost[1])) for k, c in enumerate(self.groups) if len(c.members) == 1]
        positions, tensors, costs = np.array(alone, dtype=np.int64).reshape(-1, 3).T
        return positions, tensors, costs

    @cached_property
    def multi_tensor_groups(self) -> tuple[tuple[int, TensorGroup], ...]:
        """Positions and groups of several tensors."""
        return tuple((k, group) for k, group in enumerate(self.groups) if len(group.members) > 1)

    @cached_property
    def stop_offsets(self) -> NDArray[np.int64]:
        """Offset of each stop point's subsets in `stop_costs`; the last entry is its length."""
        return np.cumsum([0, *(len(stop_point.cost) for stop_point in self.stop_points)])

    @cached_property
    def stop_costs(self) -> NDArray[np.int64]:
        """Costs of the subsets of all stop points, concatenated."""
        return np.concatenate([stop_point.cost for stop_point in self.stop_points])

    @cached_property
    def groups_before_stop(self) -> NDArray[np.int64]:
        """Number of groups decided before each of `stop_costs`."""
        return np.repeat([stop_point.after for stop_point in self.stop_points], np.diff(self.stop_offsets))


def iter_set_bits(mask: int) -> Iterator[int]:
    """Iterate over the positions of a mask's bits, lowest first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def to_tensor_mask(members: Sequence[int], subset: int) -> int:
    """Return a subset of `members` as a bit mask over all tensors."""
    return sum(1 << tensor for bit, tensor in enumerate(members) if subset >> bit & 1)


def compute_subset_values(members: Sequence[int], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the summed value of every subset of `members`; values that are not positive count as 0."""
    total: NDArray[np.float64] = _build_membership_matrix(len(members)) @ np.maximum(values[list(members)], 0.0)
    return total


def build_search_tree(exclusive: Sequence[int], tensors: int, shared: Iterable[SharedCost]) -> SearchTree:
    """Build the tree of the tensors of a bit mask, whose own costs are `exclusive`."""
    return _SearchTreeBuilder(exclusive).build(tensors, shared)


class _SearchTreeBuilder:
    def __init__(self, exclusive: Sequence[int]) -> None:
        self._exclusive = exclusive
        self._fork_count = 0

    def build(self, tensors: int, shared: Iterable[SharedCost]) -> SearchTree:
        """Build the tree of these tensors, with the shared costs that are not paid yet."""
        costs = [SharedCost(cost.needed_by & tensors, cost.flops) for cost in shared if cost.needed_by & tensors]
        costs.sort(key=lambda cost: _lowest(cost.needed_by))
        blocked = _find_blocked_cuts(costs, tensors)
        order = list(iter_set_bits(tensors))
        groups: list[TensorGroup] = []
        stop_points = [StopPoint(0, (), np.zeros(1, dtype=np.int64))]
        carry_flops = start = opened = 0
        for position, tensor in enumerate(order):
            if blocked[tensor]:
                if position - start + 1 < MAX_STRETCH_TENSORS:
                    continue
                here = tensors >> order[start] << order[start]
                return SearchTree(
                    tuple(groups),
                    tuple(stop_points),
                    carry_flops,
                    self._build_subtrees(here, costs[opened:], until=tensor),
                )
            members, deeper = tuple(order[start : position + 1]), tensors >> (tensor + 1)
            start, first = position + 1, opened
            while opened < len(costs) and _lowest(costs[opened].needed_by) <= tensor:
                opened += 1
            used = costs[first:opened]
            local = [cost for cost in used if not cost.needed_by >> (tensor + 1) & deeper]
            if len(members) > 1:
                stop_points.append(StopPoint(len(groups), members, carry_flops + self._subset_costs(members, used)))
            carry_flops += sum(cost.flops for cost in used) - sum(cost.flops for cost in local)
            groups += [
                TensorGroup(part, self._subset_costs(part, local))
                for part in _split_into_independent_parts(members, local)
            ]
            stop_points.append(StopPoint(len(groups), (), np.array([carry_flops])))
        return SearchTree(tuple(groups), tuple(stop_points), carry_flops)

    def _build_subtrees(
        self, tensors: int, costs: list[SharedCost], *, until: int
    ) -> tuple[tuple[int, SearchTree], ...]:
        """Fork at the longest branch open at `until`: without the tensors at its far end, or with it paid."""
        branches = [cost for cost in costs if _lowest(cost.needed_by) <= until and _count_blocked_cuts(cost, tensors)]
        longest = max(branches, key=lambda cost: _count_blocked_cuts(cost, tensors))
        beyond = _beyond_last_gap(longest.needed_by, tensors)
        entry_flops = sum(cost.flops for cost in costs if cost.needed_by & beyond == beyond)
        unpaid = [cost for cost in costs if cost.needed_by & beyond != beyond]
        self._fork_count += 1
        paid = (entry_flops, self.build(tensors, unpaid))
        if self._fork_count > MAX_FORKS:
            return (paid,)
        return (0, self.build(tensors & ~beyond, costs)), paid

    def _subset_costs(self, members: tuple[int, ...], costs: Sequence[SharedCost]) -> NDArray[np.int64]:
        """Compute the own and shared costs of every subset of `members`."""
        if len(members) == 1:
            return np.array(
                [0, self._exclusive[members[0]] + sum(cost.flops for cost in costs if cost.needed_by >> members[0] & 1)]
            )
        total = np.zeros(1, dtype=np.int64)
        for tensor in members:
            total = np.concatenate([total, total + self._exclusive[tensor]])
        subsets = np.arange(len(total))
        for cost in costs:
            needed_by = sum(1 << bit for bit, tensor in enumerate(members) if cost.needed_by >> tensor & 1)
            if needed_by:
                total[subsets & needed_by != 0] += cost.flops
        return total


def _find_blocked_cuts(costs: list[SharedCost], tensors: int) -> list[bool]:
    """Find whether a cut behind each tensor is blocked: a cost before it serves only part of what is deeper."""
    change = [0] * (tensors.bit_length() + 1)
    for cost in costs:
        length = _count_blocked_cuts(cost, tensors)
        if length:
            first = _lowest(cost.needed_by)
            change[first] += 1
            change[first + length] -= 1
    blocked, open_ = [], 0
    for step in change:
        open_ += step
        blocked.append(open_ > 0)
    return blocked


def _count_blocked_cuts(cost: SharedCost, tensors: int) -> int:
    """Count the cuts, from its first tensor on, that a cost blocks: it serves some of what is deeper, not all."""
    end = min(cost.needed_by.bit_length() - 1, (tensors & ~cost.needed_by).bit_length() - 1)
    return max(0, end - _lowest(cost.needed_by))


def _beyond_last_gap(needed_by: int, tensors: int) -> int:
    """Return the deepest unbroken run, among `tensors`, of those that a cost serves."""
    last = needed_by.bit_length()
    gap = (tensors & ~needed_by & ((1 << last) - 1)).bit_length()
    return needed_by >> gap << gap


def _split_into_independent_parts(members: tuple[int, ...], costs: Sequence[SharedCost]) -> list[tuple[int, ...]]:
    """Split the members into parts that share no cost."""
    if not costs:
        return [(tensor,) for tensor in members]
    parts: list[int] = []
    for mask in [1 << tensor for tensor in members] + [cost.needed_by for cost in costs]:
        joined = mask
        for part in parts:
            if part & mask:
                joined |= part
        parts = [part for part in parts if not part & mask] + [joined]
    return [tuple(iter_set_bits(part)) for part in sorted(parts)]


@cache
def _build_membership_matrix(size: int) -> NDArray[np.float64]:
    """Build the matrix [subsets, members] of which of `size` members each subset holds."""
    return (np.arange(1 << size)[:, None] >> np.arange(size) & 1).astype(np.float64)


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1
