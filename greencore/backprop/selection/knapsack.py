"""0/1 knapsack, item by item: the Pareto frontier of (cost, value) pairs, with unrounded costs."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class KnapsackItem:
    """An item that may be taken: the tensors of `mask`, as a bit mask."""

    mask: int
    cost: int
    value: float

    def combine(self, other: "KnapsackItem") -> "KnapsackItem":
        """Return both items as one."""
        return KnapsackItem(self.mask | other.mask, self.cost + other.cost, self.value + other.value)


@dataclass
class _History:
    """Derivation of each pair: node k is its parent node and the mask taken in addition. Node 0 is empty."""

    starts: list[int] = field(default_factory=lambda: [0])
    parents: list[NDArray[np.int64]] = field(default_factory=lambda: [np.zeros(1, dtype=np.int64)])
    mask: list[int] = field(default_factory=lambda: [0])
    size: int = 1
    thinned: bool = False

    def add(self, parents: NDArray[np.int64], mask: int) -> NDArray[np.int64]:
        """Add one node for each parent, and return them."""
        start, self.size = self.size, self.size + len(parents)
        self.starts.append(start)
        self.parents.append(parents)
        self.mask.append(mask)
        return np.arange(start, self.size)


@dataclass(frozen=True)
class ParetoFrontier:
    """Undominated pairs of (cost, value), both rising strictly.

    A frontier that outgrows `limit` pairs is thinned: every pair stays exact, but some with close neighbours are
    dropped.
    """

    cost: NDArray[np.int64]
    value: NDArray[np.float64]
    limit: int
    _node: NDArray[np.int64]
    _history: _History

    @classmethod
    def empty(cls, limit: int) -> "ParetoFrontier":
        """Return the frontier of the empty selection."""
        zero = np.zeros(1, dtype=np.int64)
        return cls(zero, np.zeros(1), limit, zero, _History())

    def extend(
        self, items: Sequence[KnapsackItem], budget: int, *, price: float = 0.0, min_relaxed_value: float = -inf
    ) -> "ParetoFrontier":
        """Return the frontier in which each pair takes one of `items`, or none.

        Pairs that cost more than `budget`, or whose `value - price * cost` is at most `min_relaxed_value`, are dropped.
        """
        costs = [self.cost, *(self.cost + item.cost for item in items)]
        values = [self.value, *(self.value + item.value for item in items)]
        nodes = [self._node, *(self._history.add(self._node, item.mask) for item in items)]
        cost, value, node = np.concatenate(costs), np.concatenate(values), np.concatenate(nodes)
        useful = np.flatnonzero((value - price * cost > min_relaxed_value) & (cost <= budget))
        cost, value = cost[useful], value[useful]
        keep = find_undominated(cost, value) if len(useful) else useful
        if len(keep) > self.limit:
            keep = keep[_thin(cost[keep], self.limit)]
            self._history.thinned = True
        return ParetoFrontier(cost[keep], value[keep], self.limit, node[useful[keep]], self._history)

    @property
    def thinned(self) -> bool:
        """Whether any pair was dropped because of the limit."""
        return self._history.thinned

    def selected_mask(self, pair: int) -> int:
        """Return all tensors taken for a pair, as a bit mask."""
        mask, node, history = 0, int(self._node[pair]), self._history
        while node:
            entry = bisect_right(history.starts, node) - 1
            mask |= history.mask[entry]
            node = int(history.parents[entry][node - history.starts[entry]])
        return mask


def find_undominated(cost: NDArray[np.int64], value: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find the positions of the pairs that are worth more than all cheaper ones, by rising cost."""
    order = cost.argsort(kind="stable")  # linear in sorted runs
    ranked = value[order]
    best = np.maximum.accumulate(ranked)
    better = np.ones(len(order), dtype=np.bool_)
    np.greater(best[1:], best[:-1], out=better[1:])
    order = order[better]
    spent = cost[order]
    last = np.ones(len(order), dtype=np.bool_)
    np.not_equal(spent[1:], spent[:-1], out=last[:-1])
    return order[last]


def _thin(cost: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Find the positions of the cheapest and the most valuable pair in each of `limit / 2` equal steps of cost.

    The cheapest are kept for a large tensor that only just fits on top of them.
    """
    step = ((cost - cost[0]) * (limit / 2 / (int(cost[-1] - cost[0]) + 1))).astype(np.int64)
    keep = np.ones(len(cost), dtype=np.bool_)
    new = step[1:] != step[:-1]
    keep[1:-1] = new[:-1] | new[1:]
    return np.flatnonzero(keep)
