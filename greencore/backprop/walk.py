"""The walk from output to input that carries a knapsack along, and every place where a selection may stop."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greencore.backprop.bounds import Guide
from greencore.backprop.chain import Choice, Way
from greencore.backprop.knapsack import Frontier, Option, undominated
from greencore.backprop.subsets import mask_of, subset_values

TOGETHER = 3  # options after which choices are made


@dataclass(frozen=True)
class Stop:
    """Selections that go no deeper: any pair of `frontier` with any subset of `members` on top.

    `cost` and `value` are of each subset (`greencore.backprop.subsets`); `cost` holds, besides the members' own,
    everything that carries the gradient down to here.
    """

    frontier: Frontier
    members: tuple[int, ...]
    cost: NDArray[np.int64]
    value: NDArray[np.float64]

    def picked(self, subset: int, pair: int) -> int:
        """The tensors of a subset and a pair, as a bit mask."""
        return self.frontier.picked(pair) | mask_of(self.members, subset)


def stops(way: Way, values: NDArray[np.float64], guide: Guide, frontier: Frontier, spent: int = 0) -> Iterator[Stop]:
    """Every place to stop along a way that the guide holds open; only tensors of positive value are taken."""
    made = 0
    for halt in itertools.compress(way.halts, guide.open):
        frontier, made = _carried(frontier, way, values, guide, made, halt.after), halt.after
        if not len(frontier.cost):
            return
        yield Stop(frontier, halt.members, spent + halt.cost, subset_values(values[list(halt.members)]))
    if guide.forks:
        frontier = _carried(frontier, way, values, guide, made, len(way.choices))
    for paid, fork, onward in guide.forks:
        yield from stops(fork, values, onward, frontier, spent + paid)


def _carried(
    frontier: Frontier, way: Way, values: NDArray[np.float64], guide: Guide, made: int, until: int
) -> Frontier:
    """The frontier once the choices from `made` to `until` are made, a few at a time: it costs less than one by one."""
    options: list[Option] = []
    for position in range(made, until):
        more = _options(way.choices[position], values)
        options = [*options, *more, *(first.with_(second) for first in options for second in more)]
        done = position + 1
        if done == until or len(options) >= TOGETHER:
            frontier = frontier.offer(options, guide.room[done], price=guide.price, least=guide.least[done])
            options = []
            if not len(frontier.cost):
                break
    return frontier


def _options(choice: Choice, values: NDArray[np.float64]) -> list[Option]:
    """The subsets worth taking."""
    if len(choice.members) == 1:
        (tensor,) = choice.members
        return [Option(1 << tensor, int(choice.cost[1]), float(values[tensor]))] if values[tensor] > 0 else []
    value = subset_values(values[list(choice.members)])
    worth = undominated(choice.cost, value)
    return [Option(mask_of(choice.members, s), int(choice.cost[s]), float(value[s])) for s in worth.tolist() if s]
