"""How long many things are: counted one by one, and described by a few figures and a histogram."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LengthDistribution:
    """Lengths in characters or tokens. A percentile is the smallest length that so many percent do not exceed."""

    total: int
    mean: float
    median: int
    p90: int
    p99: int
    max: int


class LengthCounter:
    """Counts lengths without keeping each; what it holds grows with the number of different ones."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, length: int) -> None:
        """Count one more; `length` is 0 or more."""
        self._counts[length] += 1

    def __len__(self) -> int:
        """How many were counted."""
        return self._counts.total()

    def distribution(self) -> LengthDistribution:
        """What was counted, as figures. Raises ValueError where nothing was."""
        if not self._counts:
            raise ValueError("nothing was counted, so there is no distribution")
        total = sum(length * count for length, count in self._counts.items())
        median, p90, p99 = self._percentiles((50, 90, 99))
        return LengthDistribution(total, total / len(self), median, p90, p99, max(self._counts))

    def count_longer_than(self, bound: int) -> int:
        """How many exceed `bound`."""
        return sum(count for length, count in self._counts.items() if length > bound)

    def histogram(self) -> list[tuple[int, int]]:
        """(upper bound, how many do not exceed it but the bound before), the bounds powers of two, from end to end."""
        if not self._counts:
            return []
        exponents = Counter({_exponent(length): 0 for length in self._counts})
        for length, count in self._counts.items():
            exponents[_exponent(length)] += count
        return [(2**exponent, exponents[exponent]) for exponent in range(min(exponents), max(exponents) + 1)]

    def _percentiles(self, percents: Sequence[int]) -> list[int]:
        """In the order of `percents`, which rise."""
        found: list[int] = []
        reached, number = 0, len(self)
        for length, count in sorted(self._counts.items()):
            reached += count
            while len(found) < len(percents) and reached * 100 >= percents[len(found)] * number:
                found.append(length)
        return found


def _exponent(length: int) -> int:
    return max(length - 1, 0).bit_length()
