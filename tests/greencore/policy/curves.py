"""Concave curves for property tests."""

import numpy as np
from hypothesis import strategies as st

from greencore.policy import UtilityCurve


@st.composite
def curves(draw: st.DrawFn, *, most_points: int = 5) -> UtilityCurve:
    """A curve with points on a grid of hundredths of ρ, and slopes that fall by whole steps; it may end flat."""
    count = draw(st.integers(2, most_points))
    hundredths = draw(st.lists(st.integers(10, 100), min_size=count, max_size=count, unique=True))
    slopes = draw(st.lists(st.integers(0, 20), min_size=count - 1, max_size=count - 1))
    rho = np.array(sorted(hundredths)) / 100
    value = np.concatenate([[0.0], np.cumsum(np.diff(rho) * sorted(slopes, reverse=True))])
    return UtilityCurve(rho, value)
