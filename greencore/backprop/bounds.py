"""How much a partial choice can still come to, so that hopeless ones are dropped early without losing the best.

At a price per FLOP each tensor is worth its value less its cost, or nothing, whatever else is chosen: the Lagrangian
relaxation of a knapsack. For every halt it bounds what stopping there can bring. The halts whose bound is below a
target are left out; from the rest follows what a pair must have reached at each choice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greencore.backprop.chain import Way
from greencore.backprop.subsets import subset_values

PRICES = 24  # tried at once: first over a wide range, then ROUNDS times closer to those that tell most
ROUNDS = 2
WIDTH = 1e3  # the first grid reaches this factor up and down from the value of everything per FLOP of room
ROUNDING = 1e-9  # sums of the same values differ by less, relatively


@dataclass(frozen=True)
class Guide:
    """What to follow of a way in search of more than a target.

    `open` [halts] tells which halts may bring that much. After k choices a pair of (cost, value) is of use if its
    cost is at most `room[k]` and `value - price * cost` more than `least[k]`. `forks` are the ways to go on, with
    the FLOPs paid up to where they start, and their guides.
    """

    open: list[bool]
    room: list[int]
    least: list[float]
    price: float
    forks: "tuple[tuple[int, Way, Guide], ...]"


class Bounds:
    """How much can be chosen on a way within `room` FLOPs: `reached` at least, `top` at most."""

    def __init__(self, way: Way, values: NDArray[np.float64], room: int) -> None:
        usual = float(np.maximum(values, 0.0).sum()) / max(room, 1)
        prices = np.geomspace(usual / WIDTH, usual * WIDTH, PRICES) if usual else np.zeros(1)
        self._priced = _PricedWay(way, values, room, prices)
        self.reached: float = self._priced.reached * (1 - ROUNDING)
        for _ in range(ROUNDS if usual else 0):
            telling = self._priced.telling(self.reached)
            if not telling:
                break  # nothing more than what is reached
            steps = max(PRICES // len(telling), 4)
            around = [np.geomspace(prices[max(k - 1, 0)], prices[min(k + 1, len(prices) - 1)], steps) for k in telling]
            prices = np.unique(np.concatenate(around))
            earlier, self._priced = self._priced, _PricedWay(way, values, room, prices)
            self._priced.tighten(earlier)
            self.reached = max(self.reached, self._priced.reached * (1 - ROUNDING))
        self.top = self._priced.top()

    def guide(self, target: float) -> Guide:
        """The guide to everything that may be worth more than `target`."""
        return self._priced.guide(target)


class _PricedWay:
    """A way at each of several prices per FLOP, entered with the relaxed gain and cost of what was chosen `before`."""

    def __init__(
        self,
        way: Way,
        values: NDArray[np.float64],
        room: int,
        prices: NDArray[np.float64],
        before: tuple[NDArray[np.float64] | float, NDArray[np.float64] | float] = (0.0, 0.0),
    ) -> None:
        self._way, self._prices = way, prices
        gains, costs = np.zeros((2, len(way.choices) + 1, len(prices)))
        gains[0], costs[0] = before
        positions, tensors, flops = way.singles
        gains[positions + 1] = np.maximum(values[tensors, None] - flops[:, None] * prices, 0.0)
        costs[positions + 1] = np.where(gains[positions + 1] > 0, flops[:, None], 0)
        for position, choice in way.groups:
            worth = subset_values(values[list(choice.members)])[:, None] - choice.cost[:, None] * prices
            best = worth.argmax(axis=0)
            gains[position + 1] = worth[best, np.arange(len(prices))]
            costs[position + 1] = choice.cost[best]
        self._gained, spent = gains.cumsum(axis=0), costs.cumsum(axis=0)
        left = room - way.halt_costs
        paid = left[:, None] * prices
        heights = paid + self._gained[way.halt_after]
        for start, halt in zip(way.halt_starts.tolist(), way.halts, strict=False):
            if halt.members:
                heights[start : start + len(halt.cost)] += subset_values(values[list(halt.members)])[:, None]
        heights[left < 0] = -np.inf
        spare = left[:, None] - spent[way.halt_after]
        reached = np.where(spare >= 0, heights - spare * prices, -np.inf)
        starts = way.halt_starts[:-1]
        self._left = np.maximum.reduceat(left, starts)
        self._heights = np.maximum.reduceat(heights, starts, axis=0)
        self._bounds = np.maximum.reduceat(heights.min(axis=1), starts)
        self._forks = [
            (
                way.carry + toll,
                fork,
                _PricedWay(fork, values, room - way.carry - toll, prices, (self._gained[-1], spent[-1])),
            )
            for toll, fork in way.forks
            if way.carry + toll <= room
        ]
        self.reached: float = max([float(reached.max()), *(priced.reached for _, _, priced in self._forks)])

    def top(self) -> float:
        """Nothing on the way is worth more."""
        return max([float(self._bounds.max()), *(priced.top() for _, _, priced in self._forks)])

    def tighten(self, other: "_PricedWay") -> None:
        """Take over the bounds at other prices where they say more."""
        self._bounds = np.minimum(self._bounds, other._bounds)
        for (_, _, mine), (_, _, theirs) in zip(self._forks, other._forks, strict=True):
            mine.tighten(theirs)

    def telling(self, target: float) -> set[int]:
        """The positions of the prices that bound best the halts that may be worth more than `target`."""
        best = set(self._heights[self._bounds > target].argmin(axis=1).tolist())
        return best.union(*(priced.telling(target) for _, _, priced in self._forks))

    def guide(self, target: float) -> Guide:
        """The guide to everything that may be worth more than `target`."""
        return self._guide(target)[0]

    def _guide(self, target: float) -> tuple[Guide, NDArray[np.float64], int]:
        """The guide, and from the way's start: the greatest heights at each price, and the FLOPs left for choices."""
        reach = np.full(self._gained.shape, -np.inf)
        room = np.full(len(reach), -1, dtype=np.int64)
        forks = []
        for spent, fork, priced in self._forks:
            guide, heights, left = priced._guide(target)
            forks.append((spent, fork, guide))
            reach[-1], room[-1] = np.maximum(reach[-1], heights), max(room[-1], left)
        open_ = self._bounds > target
        for halt in np.flatnonzero(open_).tolist():
            after = self._way.halts[halt].after
            reach[after] = np.maximum(reach[after], self._heights[halt])
            room[after] = max(room[after], self._left[halt])
        reach = np.maximum.accumulate(reach[::-1])[::-1]
        room = np.maximum.accumulate(room[::-1])[::-1]
        price = int(reach[0].argmin())
        least = target - ROUNDING * abs(target) - reach[:, price] + self._gained[:, price]
        guide = Guide(open_.tolist(), room.tolist(), least.tolist(), float(self._prices[price]), tuple(forks))
        return guide, reach[0], int(room[0])
