"""How much a partial choice can still come to, so that hopeless ones are dropped early without losing the best.

At a price per FLOP each tensor is worth its value less its cost, or nothing, whatever else is chosen: the Lagrangian
relaxation of a knapsack. For every stop point it bounds what stopping there can bring. The stop points whose bound
is below a
target are left out; from the rest follows what a pair must have reached at each choice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greencore.backprop.selection.decision_order import SearchTree
from greencore.backprop.selection.subsets import compute_subset_values

PRICE_COUNT = 24  # tried at once: first over a wide range, then REFINEMENTS times closer to those that tell most
REFINEMENTS = 2
PRICE_SPAN = 1e3  # the first grid reaches this factor up and down from the value of everything per FLOP of budget
ROUNDING_TOLERANCE = 1e-9  # sums of the same values differ by less, relatively


@dataclass(frozen=True)
class Pruning:
    """What to follow of a tree in search of more than a target.

    `open` [stop points] tells which stop points may bring that much. After k choices a pair of (cost, value) is of
    use if its
    cost is at most `budget[k]` and `value - price * cost` more than `min_relaxed_value[k]`. `subtrees` are the ways
    to go on, with
    the FLOPs paid up to where they start, and their prunings.
    """

    open: list[bool]
    budget: list[int]
    min_relaxed_value: list[float]
    price: float
    subtrees: "tuple[tuple[int, SearchTree, Pruning], ...]"


class LagrangianBounds:
    """How much can be chosen on a tree within `budget` FLOPs: `lower_bound` at least, `upper_bound` at most."""

    def __init__(self, tree: SearchTree, values: NDArray[np.float64], budget: int) -> None:
        usual = float(np.maximum(values, 0.0).sum()) / max(budget, 1)
        prices = np.geomspace(usual / PRICE_SPAN, usual * PRICE_SPAN, PRICE_COUNT) if usual else np.zeros(1)
        self._priced = _RelaxedTree(tree, values, budget, prices)
        self.lower_bound: float = self._priced.lower_bound * (1 - ROUNDING_TOLERANCE)
        for _ in range(REFINEMENTS if usual else 0):
            tightest = self._priced.find_tightest_prices(self.lower_bound)
            if not tightest:
                break  # nothing more than what is reached
            steps = max(PRICE_COUNT // len(tightest), 4)
            around = [np.geomspace(prices[max(k - 1, 0)], prices[min(k + 1, len(prices) - 1)], steps) for k in tightest]
            prices = np.unique(np.concatenate(around))
            earlier, self._priced = self._priced, _RelaxedTree(tree, values, budget, prices)
            self._priced.tighten(earlier)
            self.lower_bound = max(self.lower_bound, self._priced.lower_bound * (1 - ROUNDING_TOLERANCE))
        self.upper_bound = self._priced.upper_bound()

    def prune_below(self, target: float) -> Pruning:
        """What is left to search for more than `target`."""
        return self._priced.prune_below(target)


class _RelaxedTree:
    """A tree at each of several prices per FLOP, entered with the relaxed gain and cost of what was chosen `before`."""

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
            worth = compute_subset_values(values[list(group.members)])[:, None] - group.cost[:, None] * prices
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
                    values[list(stop_point.members)]
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
        """Nothing on the tree is worth more."""
        return max([float(self._bounds.max()), *(priced.upper_bound() for _, _, priced in self._subtrees)])

    def tighten(self, other: "_RelaxedTree") -> None:
        """Take over the bounds at other prices where they say more."""
        self._bounds = np.minimum(self._bounds, other._bounds)
        for (_, _, mine), (_, _, theirs) in zip(self._subtrees, other._subtrees, strict=True):
            mine.tighten(theirs)

    def find_tightest_prices(self, target: float) -> set[int]:
        """The positions of the prices that bound best the stop points that may be worth more than `target`."""
        best = set(self._relaxed_values[self._bounds > target].argmin(axis=1).tolist())
        return best.union(*(priced.find_tightest_prices(target) for _, _, priced in self._subtrees))

    def prune_below(self, target: float) -> Pruning:
        """What is left to search for more than `target`."""
        return self._prune_below(target)[0]

    def _prune_below(self, target: float) -> tuple[Pruning, NDArray[np.float64], int]:
        """The pruning, and from the tree's start: the greatest relaxed values at each price, and the FLOPs left for
        choices.
        """
        reach = np.full(self._gained.shape, -np.inf)
        budget = np.full(len(reach), -1, dtype=np.int64)
        subtrees = []
        for spent, subtree, priced in self._subtrees:
            pruning, relaxed_values, left = priced._prune_below(target)
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
