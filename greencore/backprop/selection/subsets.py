"""All subsets of a few tensors at once: position s stands for the members that are the bits of s."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray


def compute_subset_values(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The summed value of every subset; what is not positive counts as nothing, so that no subset gains by it."""
    total: NDArray[np.float64] = _build_membership_matrix(len(values)) @ np.maximum(values, 0.0)
    return total


def to_tensor_mask(members: Sequence[int], subset: int) -> int:
    """A subset of `members`, tensors, as a bit mask over all tensors."""
    return sum(1 << tensor for bit, tensor in enumerate(members) if subset >> bit & 1)


@cache
def _build_membership_matrix(size: int) -> NDArray[np.float64]:
    """Which of so many members each subset holds, [subsets, members]."""
    return (np.arange(1 << size)[:, None] >> np.arange(size) & 1).astype(np.float64)
