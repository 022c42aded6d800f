"""Polynomial of a training step's cost in the lengths of its rows, for each kind of model."""

import math
from collections.abc import Sequence

Terms = tuple[tuple[int, ...], ...]
"""Terms of a cost polynomial without a constant one: the exponents of the lengths in each."""

TOKENS: Terms = ((1,), (2,))  # L, L²
TOKENS_AND_LOGITS: Terms = ((1, 0), (0, 1), (2, 0))  # L, K, L²: the output embedding and the loss depend on K alone
SOURCE_AND_TARGET: Terms = ((1, 0), (0, 1), (2, 0), (0, 2), (1, 1))  # S, T, S², T², S·T


def evaluate_cost(coefficients: Sequence[float], lengths: Sequence[float]) -> float:
    """Evaluate the polynomial of so many coefficients at the lengths of a row: (L,), (L, K) or (S, T)."""
    [terms] = [terms for terms in (TOKENS, TOKENS_AND_LOGITS, SOURCE_AND_TARGET) if len(terms) == len(coefficients)]
    values = (math.prod(map(pow, lengths, exponents)) for exponents in terms)
    return sum(coefficient * value for coefficient, value in zip(coefficients, values, strict=True))
