"""Lagrangian bounds of the selection search: the most value that a partial selection can still reach.

At a price per FLOP each tensor gains its value less its cost, or nothing, whatever else is selected: the Lagrangian
relaxation of a knapsack. It bounds the value of stopping at each stop point. Stop points whose bound is below a target
are pruned; the others determine what a pair must have reached after each group. `search` has an example.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greencore.backprop.selection.decision_order import SearchTree, compute_subset_values

PRICE_COUNT = 24  # tried at once: first over a wide range, then REFINEMENTS times around the tightest ones
REFINEMENTS = 2
PRICE_SPAN = 1e3  # the first grid spans this factor above and below the total value per FLOP of budget
ROUNDING_TOLERANCE = 1e-9  # sums of the same values differ by less than this, relatively


@dataclass(frozen=True)
class Pruning:
    """The part of a tree that may hold more than a target.

    `open` [stop points] marks the stop points whose bound is above the target. After k groups a (cost, value) pair is
    kept if its cost is at most `budget[k]` and `value - price * cost` more than `min_relaxed_value[k]`. `subtrees` have
    the FLOPs paid up to their root, and their prunings.
    """

    open: list[bool]
    budget: list[int]
    min_relaxed_value: list[float]
    price: float
    subtrees: "tuple[tuple[int, SearchTree, Pruning], ...]"


class LagrangianBounds:
    """Bounds of the best value on a tree within `budget` FLOPs: `lower_bound` is reached, `upper_bound` a limit."""

    def __init__(self, tree: SearchTree, values: NDArray[np.float64], budget: int) -> None:
        usual = float(np.maximum(values, 0.0).sum()) / max(budget, 1)
        prices = np.geomspace(usual / PRICE_SPAN, usual * PRICE_SPAN, PRICE_COUNT) if usual else np.zeros(1)
        self._priced = _RelaxedTree(tree, values, budget, prices)
        self.lower_bound: float = self._priced.lower_bound * (1 - ROUNDING_TOLERANCE)
        for _ in range(REFINEMENTS if usual else 0):
            tightest = self._priced.find_tightest_prices(self.lower_bound)
            if not tightest:
                break  # the lower bound is the optimum
            steps = max(PRICE_COUNT // len(tightest), 4)
            around = [np.geomspace(prices[max(k - 1, 0)], prices[min(k + 1, len(prices) - 1)], steps) for k in tightest]
            prices = np.unique(np.concatenate(around))
            earlier, self._priced = self._priced, _RelaxedTree(tree, values, budget, prices)
            self._priced.tighten(earlier)
            self.lower_bound = max(self.lower_bound, self._priced.lower_bound * (1 - ROUNDING_TOLERANCE))
        self.upper_bound = self._priced.upper_bound()

    def prune_below(self, target: float) -> Pruning:
        """Return the part of the tree that may hold more than `target`."""
        return self._priced.prune_below(target)[0]


class _RelaxedTree:
    """A tree relaxed at several prices per FLOP; `before` is the relaxed gain and cost of the groups above it."""

    def __init__(
        self,
        tree: SearchTree,
        values: NDArray[np.float64],
        budget: int,
        prices: NDArray[np.float64],
        before: tuple[NDArray[np.float64] | float, NDArray[np.float64] | float] = (0.0, 0.0),
    ) -> None:
        self._tree, self._prices = tree, prices
        gains, costs = np.zeros((2, len(tree.groups) + 1, len(prices)))
        gains[0], costs[0] = before
        positions, tensors, flops = tree.single_tensor_groups
        gains[positions + 1] = np.maximum(values[tensors, None] - flops[:, None] * prices, 0.0)
        costs[positions + 1] = np.where(gains[positions + 1] > 0, flops[:, None], 0)
        for position, group in tree.multi_tensor_groups:
            worth = compute_subset_values(group.members, values)[:, None] - group.cost[:, None] * prices
            best = worth.argmax(axis=0)
            gains[position + 1] = worth[best, np.arange(len(prices))]
            costs[position + 1] = group.cost[best]
        self._gained, spent = gains.cumsum(axis=0), costs.cumsum(axis=0)
        left = budget - tree.stop_costs
        paid = left[:, None] * prices
        relaxed_values = paid + self._gained[tree.groups_before_stop]
        for start, stop_point in zip(tree.stop_offsets.tolist(), tree.stop_points, strict=False):
            if stop_point.members:
                relaxed_values[start : start + len(stop_point.cost)] += compute_subset_values(
                    stop_point.members, values
                )[:, None]
        relaxed_values[left < 0] = -np.inf
        spare = left[:, None] - spent[tree.groups_before_stop]
        lower_bound = np.where(spare >= 0, relaxed_values - spare * prices, -np.inf)
        starts = tree.stop_offsets[:-1]
        self._left = np.maximum.reduceat(left, starts)
        self._relaxed_values = np.maximum.reduceat(relaxed_values, starts, axis=0)
        self._bounds = np.maximum.reduceat(relaxed_values.min(axis=1), starts)
        self._subtrees = [
            (
                tree.carry_flops + entry_flops,
                subtree,
                _RelaxedTree(
                    subtree, values, budget - tree.carry_flops - entry_flops, prices, (self._gained[-1], spent[-1])
                ),
            )
            for entry_flops, subtree in tree.subtrees
            if tree.carry_flops + entry_flops <= budget
        ]
        self.lower_bound: float = max(
            [float(lower_bound.max()), *(priced.lower_bound for _, _, priced in self._subtrees)]
        )

    def upper_bound(self) -> float:
        """Return a value that nothing on the tree exceeds."""
        return max([float(self._bounds.max()), *(priced.upper_bound() for _, _, priced in self._subtrees)])

    def tighten(self, other: "_RelaxedTree") -> None:
        """Take over the bounds at other prices where they are lower."""
        self._bounds = np.minimum(self._bounds, other._bounds)
        for (_, _, mine), (_, _, theirs) in zip(self._subtrees, other._subtrees, strict=True):
            mine.tighten(theirs)

    def find_tightest_prices(self, target: float) -> set[int]:
        """Find the positions of the prices with the lowest bounds of stop points that may exceed `target`."""
        best = set(self._relaxed_values[self._bounds > target].argmin(axis=1).tolist())
        return best.union(*(priced.find_tightest_prices(target) for _, _, priced in self._subtrees))

    def prune_below(self, target: float) -> tuple[Pruning, NDArray[np.float64], int]:
        """Return the pruning and, at the root, the greatest relaxed values by price and the FLOPs for groups."""
        reach = np.full(self._gained.shape, -np.inf)
        budget = np.full(len(reach), -1, dtype=np.int64)
        subtrees = []
        for spent, subtree, priced in self._subtrees:
            pruning, relaxed_values, left = priced.prune_below(target)
            subtrees.append((spent, subtree, pruning))
            reach[-1], budget[-1] = np.maximum(reach[-1], relaxed_values), max(budget[-1], left)
        open_ = self._bounds > target
        for stop_point in np.flatnonzero(open_).tolist():
            after = self._tree.stop_points[stop_point].after
            reach[after] = np.maximum(reach[after], self._relaxed_values[stop_point])
            budget[after] = max(budget[after], self._left[stop_point])
        reach = np.maximum.accumulate(reach[::-1])[::-1]
        budget = np.maximum.accumulate(budget[::-1])[::-1]
        price = int(reach[0].argmin())
        min_relaxed_value = target - ROUNDING_TOLERANCE * abs(target) - reach[:, price] + self._gained[:, price]
        pruning = Pruning(
            open_.tolist(), budget.tolist(), min_relaxed_value.tolist(), float(self._prices[price]), tuple(subtrees)
        )
        return pruning, reach[0], int(budget[0])
