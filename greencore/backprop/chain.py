"""The order in which tensors are decided: from the output to the input, in stretches of parallel branches.

A backward operator is paid for once if any tensor beyond it is trained. From block to block the operators that
tensors need are nested, so that whoever goes deeper pays for the whole of the blocks above. Where branches run side
by side (query, key and value), only whoever stops within them can leave a branch out. So tensors are cut into
stretches such that each operator used so far is needed by everything deeper, or by nothing deeper.

A branch may also be joined much later: the keys of every cross-attention lead to the encoder. There the way forks in
two, and both are followed: no tensor beyond the branch is trained, or its operators are paid for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from greencore.backprop.profile import SharedCost

WIDEST = 10  # tensors in a stretch whose every subset is looked at; a wider one forks
MOST_FORKS = 64  # forks that are followed both ways; after that a branch is always paid for, which costs optimality


@dataclass(frozen=True)
class Choice:
    """Tensors to be decided together, since operators serve them alone. `cost` is of each subset of them.

    Bit k of a position in `cost` stands for `members[k]`.
    """

    members: tuple[int, ...]
    cost: NDArray[np.int64]


@dataclass(frozen=True)
class Halt:
    """A place to stop, once `after` choices of the way are made: with any subset of `members` on top.

    `cost` is of each subset, as in `Choice`, and holds all that carries the gradient down to here besides.
    """

    after: int
    members: tuple[int, ...]
    cost: NDArray[np.int64]


@dataclass(frozen=True)
class Way:
    """Choices from output to input, the halts between them, and the FLOPs that carry the gradient to its end.

    At the end it may fork into other ways, each with a toll to pay first.
    """

    choices: tuple[Choice, ...]
    halts: tuple[Halt, ...]
    carry: int
    forks: tuple[tuple[int, "Way"], ...] = ()

    @cached_property
    def singles(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Positions, tensors and costs of the choices of a single tensor."""
        alone = [(k, c.members[0], int(c.cost[1])) for k, c in enumerate(self.choices) if len(c.members) == 1]
        positions, tensors, costs = np.array(alone, dtype=np.int64).reshape(-1, 3).T
        return positions, tensors, costs

    @cached_property
    def groups(self) -> tuple[tuple[int, Choice], ...]:
        """Positions of the choices of several tensors, with these."""
        return tuple((k, choice) for k, choice in enumerate(self.choices) if len(choice.members) > 1)

    @cached_property
    def halt_starts(self) -> NDArray[np.int64]:
        """Where each halt's subsets start in `halt_costs`; the last entry is its length."""
        return np.cumsum([0, *(len(halt.cost) for halt in self.halts)])

    @cached_property
    def halt_costs(self) -> NDArray[np.int64]:
        """The costs of all halts' subsets, one after the other."""
        return np.concatenate([halt.cost for halt in self.halts])

    @cached_property
    def halt_after(self) -> NDArray[np.int64]:
        """How many choices are made before each of `halt_costs`."""
        return np.repeat([halt.after for halt in self.halts], np.diff(self.halt_starts))


def bits(mask: int) -> Iterator[int]:
    """The positions of the bits of a mask, lowest first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def survey(exclusive: Sequence[int], tensors: int, shared: Iterable[SharedCost]) -> Way:
    """The way through the tensors of a bit mask, whose own costs are `exclusive`."""
    return _Surveyor(exclusive).survey(tensors, shared)


class _Surveyor:
    def __init__(self, exclusive: Sequence[int]) -> None:
        self._exclusive = exclusive
        self._forks = 0

    def survey(self, tensors: int, shared: Iterable[SharedCost]) -> Way:
        """The way through these tensors, with the shared costs that are not paid yet."""
        costs = sorted(_among(tensors, shared), key=lambda cost: _lowest(cost.needed_by))
        blocked = _blocked(costs, tensors)
        order = list(bits(tensors))
        choices: list[Choice] = []
        halts = [Halt(0, (), np.zeros(1, dtype=np.int64))]
        carry = start = opened = 0
        for position, tensor in enumerate(order):
            if blocked[tensor]:
                if position - start + 1 < WIDEST:
                    continue
                here = tensors >> order[start] << order[start]
                return Way(tuple(choices), tuple(halts), carry, self._fork(here, costs[opened:], until=tensor))
            members, deeper = tuple(order[start : position + 1]), tensors >> (tensor + 1)
            start, first = position + 1, opened
            while opened < len(costs) and _lowest(costs[opened].needed_by) <= tensor:
                opened += 1
            used = costs[first:opened]
            local = [cost for cost in used if not cost.needed_by >> (tensor + 1) & deeper]
            if len(members) > 1:
                halts.append(Halt(len(choices), members, carry + self._subset_costs(members, used)))
            carry += sum(cost.flops for cost in used) - sum(cost.flops for cost in local)
            choices += [Choice(part, self._subset_costs(part, local)) for part in _independent(members, local)]
            halts.append(Halt(len(choices), (), np.array([carry])))
        return Way(tuple(choices), tuple(halts), carry)

    def _fork(self, tensors: int, costs: list[SharedCost], *, until: int) -> tuple[tuple[int, Way], ...]:
        """Both ways on: without the tensors at the far end of the longest branch that opens up to here, or paid."""
        branches = [cost for cost in costs if _lowest(cost.needed_by) <= until and _blocks(cost, tensors)]
        longest = max(branches, key=lambda cost: _blocks(cost, tensors))
        beyond = _beyond_last_gap(longest.needed_by, tensors)
        toll = sum(cost.flops for cost in costs if cost.needed_by & beyond == beyond)
        unpaid = [cost for cost in costs if cost.needed_by & beyond != beyond]
        self._forks += 1
        paid = (toll, self.survey(tensors, unpaid))
        if self._forks > MOST_FORKS:
            return (paid,)
        return (0, self.survey(tensors & ~beyond, costs)), paid

    def _subset_costs(self, members: tuple[int, ...], costs: Sequence[SharedCost]) -> NDArray[np.int64]:
        """Own and shared costs of every subset of `members`."""
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


def _among(tensors: int, shared: Iterable[SharedCost]) -> list[SharedCost]:
    """Shared costs as these tensors see them."""
    return [SharedCost(cost.needed_by & tensors, cost.flops) for cost in shared if cost.needed_by & tensors]


def _blocked(costs: list[SharedCost], tensors: int) -> list[bool]:
    """Whether there can be no cut right behind each tensor: something used so far serves a part of what is deeper."""
    change = [0] * (tensors.bit_length() + 1)
    for cost in costs:
        length = _blocks(cost, tensors)
        if length:
            first = _lowest(cost.needed_by)
            change[first] += 1
            change[first + length] -= 1
    blocked, open_ = [], 0
    for step in change:
        open_ += step
        blocked.append(open_ > 0)
    return blocked


def _blocks(cost: SharedCost, tensors: int) -> int:
    """How far, from its first tensor on, a cost blocks cuts: it serves some of what is deeper, and not all."""
    end = min(cost.needed_by.bit_length() - 1, (tensors & ~cost.needed_by).bit_length() - 1)
    return max(0, end - _lowest(cost.needed_by))


def _beyond_last_gap(needed_by: int, tensors: int) -> int:
    """The deepest unbroken run, among `tensors`, of those that a cost serves."""
    last = needed_by.bit_length()
    gap = (tensors & ~needed_by & ((1 << last) - 1)).bit_length()
    return needed_by >> gap << gap


def _independent(members: tuple[int, ...], costs: Sequence[SharedCost]) -> list[tuple[int, ...]]:
    """The members in parts that no cost is shared across."""
    if not costs:
        return [(tensor,) for tensor in members]
    parts: list[int] = []
    for mask in [1 << tensor for tensor in members] + [cost.needed_by for cost in costs]:
        joined = mask
        for part in parts:
            if part & mask:
                joined |= part
        parts = [part for part in parts if not part & mask] + [joined]
    return [tuple(bits(part)) for part in sorted(parts)]


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1
