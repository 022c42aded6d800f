"""The walk from output to input that carries a knapsack along, and every place where a selection may stop."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greencore.backprop.selection.bounds import Pruning
from greencore.backprop.selection.decision_order import SearchTree, TensorGroup
from greencore.backprop.selection.knapsack import KnapsackItem, ParetoFrontier, find_undominated
from greencore.backprop.selection.subsets import compute_subset_values, to_tensor_mask

ITEMS_PER_EXTENSION = 3  # items after which choices are made


@dataclass(frozen=True)
class CandidateSet:
    """Selections that go no deeper: any pair of `frontier` with any subset of `members` on top.

    `cost` and `value` are of each subset (see `subsets`); `cost` holds, besides the members' own,
    everything that carries the gradient down to here.
    """

    frontier: ParetoFrontier
    members: tuple[int, ...]
    cost: NDArray[np.int64]
    value: NDArray[np.float64]

    def selected_mask(self, subset: int, pair: int) -> int:
        """The tensors of a subset and a pair, as a bit mask."""
        return self.frontier.selected_mask(pair) | to_tensor_mask(self.members, subset)


def enumerate_candidates(
    tree: SearchTree, values: NDArray[np.float64], pruning: Pruning, frontier: ParetoFrontier, spent: int = 0
) -> Iterator[CandidateSet]:
    """Every place to stop along a tree that the pruning leaves open; only tensors of positive value are taken."""
    made = 0
    for stop_point in itertools.compress(tree.stop_points, pruning.open):
        frontier, made = _extend_frontier(frontier, tree, values, pruning, made, stop_point.after), stop_point.after
        if not len(frontier.cost):
            return
        yield CandidateSet(
            frontier,
            stop_point.members,
            spent + stop_point.cost,
            compute_subset_values(values[list(stop_point.members)]),
        )
    if pruning.subtrees:
        frontier = _extend_frontier(frontier, tree, values, pruning, made, len(tree.groups))
    for paid, subtree, onward in pruning.subtrees:
        yield from enumerate_candidates(subtree, values, onward, frontier, spent + paid)


def _extend_frontier(
    frontier: ParetoFrontier, tree: SearchTree, values: NDArray[np.float64], pruning: Pruning, made: int, until: int
) -> ParetoFrontier:
    """The frontier once the choices from `made` to `until` are made, a few at a time: it costs less than one by one."""
    items: list[KnapsackItem] = []
    for position in range(made, until):
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
    """The subsets worth taking."""
    if len(group.members) == 1:
        (tensor,) = group.members
        return [KnapsackItem(1 << tensor, int(group.cost[1]), float(values[tensor]))] if values[tensor] > 0 else []
    value = compute_subset_values(values[list(group.members)])
    worth = find_undominated(group.cost, value)
    return [
        KnapsackItem(to_tensor_mask(group.members, s), int(group.cost[s]), float(value[s])) for s in worth.tolist() if s
    ]
