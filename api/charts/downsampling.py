"""Downsampling of a curve that keeps the lowest and the highest value of every stretch."""

import numpy as np
from numpy.typing import NDArray


def find_extremes(values: NDArray[np.float64], stretches: int) -> NDArray[np.intp]:
    """Return the ascending indices of the lowest and highest of `values` in each of `stretches` equal stretches.

    The first of equal values is taken. NaN is skipped; a stretch of NaN alone yields no index.
    """
    if not values.size:
        return np.empty(0, dtype=np.intp)
    starts = np.unique(np.arange(stretches) * values.size // stretches)
    kept: set[int] = set()
    for start, stretch in zip(starts.tolist(), np.split(values, starts[1:]), strict=True):
        if not np.isnan(stretch).all():
            kept |= {start + int(np.nanargmin(stretch)), start + int(np.nanargmax(stretch))}
    return np.array(sorted(kept), dtype=np.intp)
