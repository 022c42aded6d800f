"""Fewer points of a curve with the same look: the lowest and the highest of every stretch are kept."""

import numpy as np
from numpy.typing import NDArray


def find_extremes(values: NDArray[np.float64], stretches: int) -> NDArray[np.intp]:
    """Indices, rising, of the lowest and the highest of `values` in each of `stretches` stretches of equal length.

    Of equals the first is taken. What is not a number is passed over, and a stretch of nothing else keeps none.
    """
    if not values.size:
        return np.empty(0, dtype=np.intp)
    starts = np.unique(np.arange(stretches) * values.size // stretches)
    kept: set[int] = set()
    for start, stretch in zip(starts.tolist(), np.split(values, starts[1:]), strict=True):
        if not np.isnan(stretch).all():
            kept |= {start + int(np.nanargmin(stretch)), start + int(np.nanargmax(stretch))}
    return np.array(sorted(kept), dtype=np.intp)
