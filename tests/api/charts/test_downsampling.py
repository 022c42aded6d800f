"""Curves thinned out."""

import math
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from api.charts.downsampling import find_extremes

VALUES = st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), max_size=60)


@given(VALUES, st.integers(1, 20))
def test_no_stretch_loses_its_lowest_or_its_highest(values: list[float], stretches: int) -> None:
    kept = find_extremes(np.array(values, dtype=np.float64), stretches).tolist()

    assert kept == sorted(set(kept))
    assert len(kept) <= 2 * stretches
    starts = sorted({index * len(values) // stretches for index in range(stretches)}) if values else []
    for start, end in pairwise([*starts, len(values)]):
        numbers = [value for value in values[start:end] if not math.isnan(value)]
        shown = [values[index] for index in kept if start <= index < end]
        assert (min(shown, default=None), max(shown, default=None)) == (
            min(numbers, default=None),
            max(numbers, default=None),
        )
