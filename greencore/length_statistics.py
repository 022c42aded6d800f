"""Statistics of lengths: mean, percentiles and histogram, from counts per length."""

from collections import Counter
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LengthDistribution:
    """Summary of lengths in characters or tokens; a percentile is the smallest length that p % do not exceed."""

    total: int
    mean: float
    median: int
    p90: int
    p99: int
    max: int


class LengthCounter:
    """Counter of lengths; memory grows with the number of different lengths."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, length: int) -> None:
        """Count one length (at least 0)."""
        self._counts[length] += 1

    def __len__(self) -> int:
        """Return the number of counted lengths."""
        return self._counts.total()

    def distribution(self) -> LengthDistribution:
        """Return the distribution of the counted lengths. Raises ValueError where none was counted."""
        if not self._counts:
            raise ValueError("no length was counted, so there is no distribution")
        lengths, counts = np.array(list(self._counts.items())).T
        total = int(lengths @ counts)
        median, p90, p99 = map(int, np.quantile(lengths, (0.5, 0.9, 0.99), weights=counts, method="inverted_cdf"))
        return LengthDistribution(total, total / len(self), median, p90, p99, max(self._counts))

    def count_longer_than(self, bound: int) -> int:
        """Return the number of lengths above `bound`."""
        return sum(count for length, count in self._counts.items() if length > bound)

    def histogram(self) -> list[tuple[int, int]]:
        """Return the bins as (upper bound, count), ascending; the bounds are consecutive powers of two, inclusive."""
        if not self._counts:
            return []
        exponents = Counter({_exponent(length): 0 for length in self._counts})
        for length, count in self._counts.items():
            exponents[_exponent(length)] += count
        return [(2**exponent, exponents[exponent]) for exponent in range(min(exponents), max(exponents) + 1)]


def _exponent(length: int) -> int:
    return max(length - 1, 0).bit_length()
