"""Branch-and-bound search: extend a knapsack from output to input, and yield the candidates at every stop point.

Example: the tensors A, B and C, from output to input, have importance 3, 4 and 5 and cost 2, 3 and 4 FLOPs each;
carrying the gradient costs 1 down to A and 3 down to B or C; the budget is 8.

    groups       {A}, {B}, {C}, with a stop point after each, at a carrying cost of 1, 3 and 3
    relaxation   at a price of 1.25 per FLOP A gains 3 - 1.25 * 2 = 0.5, B 0.25 and C 0
    upper bound  after B or C: 1.25 * (8 - 3) + 0.5 + 0.25 = 7; after A (at a price of 0): 3
    lower bound  A and B, which cost 2 + 3 + 3 = 8, reach 7: the target; the stop point after A is closed
    pruning      after {A} a pair needs value - 1.25 * cost >= 7 - 7 + 0.5: (2, 3) stays, (0, 0) is dropped
    frontier     after {B} only (5, 7) stays, and C does not fit on top: A and B are the optimum
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greencore.backprop.selection.bounds import Pruning
from greencore.backprop.selection.decision_order import (
    SearchTree,
    TensorGroup,
    compute_subset_values,
    to_tensor_mask,
)
from greencore.backprop.selection.knapsack import KnapsackItem, ParetoFrontier, find_undominated

ITEMS_PER_EXTENSION = 3  # items after which the frontier is extended


@dataclass(frozen=True)
class CandidateSet:
    """Selections that go no deeper: any pair of `frontier` with any subset of `members` on top.

    `cost` and `value` are of each subset (see `TensorGroup`); `cost` includes carrying the gradient down to here.
    """

    frontier: ParetoFrontier
    members: tuple[int, ...]
    cost: NDArray[np.int64]
    value: NDArray[np.float64]

    def selected_mask(self, subset: int, pair: int) -> int:
        """Return the tensors of a subset and a pair, as a bit mask."""
        return self.frontier.selected_mask(pair) | to_tensor_mask(self.members, subset)


def enumerate_candidates(
    tree: SearchTree, values: NDArray[np.float64], pruning: Pruning, frontier: ParetoFrontier, spent: int = 0
) -> Iterator[CandidateSet]:
    """Yield the candidates at each stop point that the pruning leaves open; only tensors of positive value."""
    decided = 0
    for stop_point in itertools.compress(tree.stop_points, pruning.open):
        frontier = _extend_frontier(frontier, tree, values, pruning, decided, stop_point.after)
        decided = stop_point.after
        if not len(frontier.cost):
            return
        members = stop_point.members
        yield CandidateSet(frontier, members, spent + stop_point.cost, compute_subset_values(members, values))
    if pruning.subtrees:
        frontier = _extend_frontier(frontier, tree, values, pruning, decided, len(tree.groups))
    for paid, subtree, onward in pruning.subtrees:
        yield from enumerate_candidates(subtree, values, onward, frontier, spent + paid)


def _extend_frontier(
    frontier: ParetoFrontier, tree: SearchTree, values: NDArray[np.float64], pruning: Pruning, decided: int, until: int
) -> ParetoFrontier:
    """Extend the frontier by the groups from `decided` to `until`, several at a time, which costs less."""
    items: list[KnapsackItem] = []
    for position in range(decided, until):
        more = _list_items(tree.groups[position], values)
        items = [*items, *more, *(first.combine(second) for first in items for second in more)]
        done = position + 1
        if done == until or len(items) >= ITEMS_PER_EXTENSION:
            frontier = frontier.extend(
                items, pruning.budget[done], price=pruning.price, min_relaxed_value=pruning.min_relaxed_value[done]
            )
            items = []
            if not len(frontier.cost):
                break
    return frontier


def _list_items(group: TensorGroup, values: NDArray[np.float64]) -> list[KnapsackItem]:
    """List the subsets that are worth more than all cheaper ones, as items."""
    if len(group.members) == 1:
        (tensor,) = group.members
        return [KnapsackItem(1 << tensor, int(group.cost[1]), float(values[tensor]))] if values[tensor] > 0 else []
    value = compute_subset_values(group.members, values)
    worth = find_undominated(group.cost, value)
    return [
        KnapsackItem(to_tensor_mask(group.members, s), int(group.cost[s]), float(value[s])) for s in worth.tolist() if s
    ]
