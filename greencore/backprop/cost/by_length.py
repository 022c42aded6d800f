"""Interpolate a step's cost to any sequence length from a few traced lengths.

The cost of every operator of a dense transformer is a polynomial of the lengths without a constant term
(`greencore.cost_polynomial`). As many traces as there are terms determine the cost at all other lengths, as a weighted
sum of the traced costs.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from greencore.cost_polynomial import TOKENS, TOKENS_AND_LOGITS, Terms

Lengths = tuple[int, ...]
"""(tokens,) of a decoder-only model's rows, (tokens, learned tokens) of one whose logits are computed where the next
token is learned, or (source tokens, target tokens) of an encoder-decoder's."""


def choose_trace_lengths(shortest: Lengths, longest: Lengths, terms: Terms) -> tuple[Lengths, ...]:
    """Return the lengths to trace, `longest` first, which determine the cost at all lengths between the extremes.

    Equal extremes are widened, since one length does not determine two terms. Raises `ValueError` for extremes that are
    not the lengths of `terms`, each at least 1.
    """
    kinds = len(terms[0])
    if len(shortest) != kinds or len(longest) != kinds or min(*shortest, *longest) < 1:
        expected = "one length" if kinds == 1 else f"{kinds} lengths"
        raise ValueError(f"expected {expected} of at least 1, got {shortest} and {longest}")
    low = tuple(min(pair) for pair in zip(shortest, longest, strict=True))
    high = tuple(max(most, least + 2) for most, least in zip(longest, low, strict=True))
    if terms == TOKENS:
        return high, low
    if terms == TOKENS_AND_LOGITS:
        return high, (high[0], low[1]), low
    (low_source, low_target), (high_source, high_target) = low, high
    middle = (low_source + high_source) // 2  # at the shortest target: with the corners it determines all five terms
    return high, (high_source, low_target), (low_source, high_target), low, (middle, low_target)


def compute_interpolation_weights(
    traced: Sequence[Lengths], wanted: Sequence[Lengths], terms: Terms
) -> NDArray[np.float64]:
    """Return the weights [wanted, traced] with which the traced costs sum to the cost at each wanted length."""
    scale = np.max(np.asarray(traced, dtype=np.float64), axis=0)
    known = _evaluate_terms(np.asarray(traced) / scale, terms)
    solved = np.linalg.solve(known.T, _evaluate_terms(np.asarray(wanted, dtype=np.float64) / scale, terms).T)
    return np.asarray(solved.T, dtype=np.float64)


def fit_length_polynomial(traced: Sequence[Lengths], costs: Sequence[float], terms: Terms) -> tuple[float, ...]:
    """Fit the coefficients of the terms to the traced costs.

    `traced` are the lengths from `choose_trace_lengths`, or as many others that determine every term.
    """
    scale = np.max(np.asarray(traced, dtype=np.float64), axis=0)
    solved = np.linalg.solve(_evaluate_terms(np.asarray(traced) / scale, terms), np.asarray(costs, dtype=np.float64))
    return tuple(float(value) for value in solved / _evaluate_terms(scale[None, :], terms)[0])


def _evaluate_terms(lengths: NDArray[np.float64], terms: Terms) -> NDArray[np.float64]:
    """Evaluate the terms [points, terms] at the given lengths [points, 1 or 2]."""
    return np.stack([np.prod(lengths ** np.asarray(exponents), axis=1) for exponents in terms], axis=1)
