"""Interpolate a step's cost to any sequence length from a few traced lengths.

The cost of every operator of a dense transformer is a polynomial of the lengths without a constant term: a·L + b·L² in
a decoder, and a·S + b·T + c·S² + d·T² + e·S·T for an encoder that reads S tokens and a decoder that writes T. As many
traces as there are terms determine the cost at all other lengths, as a weighted sum of the traced costs.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Lengths = tuple[int, ...]
"""(tokens,) of a decoder-only model's rows, or (source tokens, target tokens) of an encoder-decoder's."""


def choose_trace_lengths(shortest: Lengths, longest: Lengths) -> tuple[Lengths, ...]:
    """Return the lengths to trace, `longest` first, which determine the cost at all lengths between the extremes.

    Equal extremes are widened, since one length does not determine two terms. Raises `ValueError` for anything but one
    length or two, each at least 1.
    """
    if len(shortest) != len(longest) or len(shortest) not in (1, 2) or min(*shortest, *longest) < 1:
        raise ValueError(f"lengths are (tokens,) or (source tokens, target tokens), got {shortest} and {longest}")
    low = tuple(min(pair) for pair in zip(shortest, longest, strict=True))
    high = tuple(max(most, least + 2) for most, least in zip(longest, low, strict=True))
    if len(low) == 1:
        return high, low
    (low_source, low_target), (high_source, high_target) = low, high
    middle = (low_source + high_source) // 2  # at the shortest target: with the corners it determines all five terms
    return high, (high_source, low_target), (low_source, high_target), low, (middle, low_target)


def compute_interpolation_weights(traced: Sequence[Lengths], wanted: Sequence[Lengths]) -> NDArray[np.float64]:
    """Return the weights [wanted, traced] with which the traced costs sum to the cost at each wanted length."""
    scale = np.max(np.asarray(traced, dtype=np.float64), axis=0)
    known = _evaluate_terms(np.asarray(traced) / scale)
    solved = np.linalg.solve(known.T, _evaluate_terms(np.asarray(wanted, dtype=np.float64) / scale).T)
    return np.asarray(solved.T, dtype=np.float64)


def fit_length_polynomial(traced: Sequence[Lengths], costs: Sequence[float]) -> tuple[float, ...]:
    """Fit the coefficients of the polynomial to the traced costs: of (L, L²), or of (S, T, S², T², S·T).

    `traced` are the lengths from `choose_trace_lengths`, or as many others that determine every term.
    """
    scale = np.max(np.asarray(traced, dtype=np.float64), axis=0)
    solved = np.linalg.solve(_evaluate_terms(np.asarray(traced) / scale), np.asarray(costs, dtype=np.float64))
    return tuple(float(value) for value in solved / _evaluate_terms(scale[None, :])[0])


def _evaluate_terms(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate the polynomial's terms [points, terms] at the given lengths [points, 1 or 2]."""
    columns = [*lengths.T, *(lengths**2).T]
    if lengths.shape[1] == 2:
        columns.append(lengths[:, 0] * lengths[:, 1])
    return np.stack(columns, axis=1)
