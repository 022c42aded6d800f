"""Concave piecewise linear curves: the hull of points, and the point of the best value less price."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from greencore.arrays import Floats, Ints


def find_concave_hull(x: Floats, y: Floats, points: Sequence[int]) -> list[int]:
    """Return those of the `points`, indices by rising `x`, that are corners of their upper concave hull."""
    hull: list[int] = []
    for last in points:
        while len(hull) > 1:
            first, middle = hull[-2:]
            if (y[middle] - y[first]) * (x[last] - x[first]) > (y[last] - y[first]) * (x[middle] - x[first]):
                break
            hull.pop()  # on or below the line from the first to the last
        hull.append(last)
    return hull


def count_worthwhile_segments(slopes: Floats, price: ArrayLike) -> Ints:
    """Count the segments, of falling `slopes`, that exceed a price per unit of x; all of them where it is 0 or less."""
    prices = np.asarray(price, dtype=np.float64)
    count = np.searchsorted(-slopes, -prices, side="left")
    return np.where(prices <= 0, len(slopes), count)
