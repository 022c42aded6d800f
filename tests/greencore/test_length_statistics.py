"""Length statistics, compared with statistics of the whole list."""

from bisect import bisect_left
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.length_statistics import LengthCounter


def counted(lengths: list[int]) -> LengthCounter:
    found = LengthCounter()
    for length in lengths:
        found.add(length)
    return found


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=200))
def test_the_figures_are_those_of_the_whole_list(lengths: list[int]) -> None:
    found = counted(lengths).distribution()

    assert found.total == sum(lengths)
    assert found.mean == pytest.approx(np.mean(lengths))
    assert found.max == max(lengths)
    for percentile, percent in ((found.median, 50), (found.p90, 90), (found.p99, 99)):
        assert percentile == np.percentile(lengths, percent, method="inverted_cdf")


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=200), st.integers(0, 3000))
def test_the_histogram_holds_every_length_once(lengths: list[int], bound: int) -> None:
    found = counted(lengths)
    ordered = sorted(lengths)

    histogram = found.histogram()
    below = [sum(number for _, number in histogram[: index + 1]) for index in range(len(histogram))]
    assert below == [bisect_left(ordered, up_to + 1) for up_to, _ in histogram]
    assert below[-1] == len(found) == len(lengths)
    assert all(after == 2 * before for (before, _), (after, _) in pairwise(histogram))
    assert found.count_longer_than(bound) == sum(length > bound for length in lengths)


def test_without_lengths_there_is_no_distribution() -> None:
    assert LengthCounter().histogram() == []
    with pytest.raises(ValueError, match="no length was counted"):
        LengthCounter().distribution()
