"""Mixtures of experts in a trace, which has no values to route tokens by.

A token is multiplied by `num_experts_per_tok` experts whichever they are, so a step's FLOPs are those of tokens ×
experts per token, and so are those of the gradients. Grouped products, transformers' default, show that in their
shapes. The loop over experts reads which tokens each of them gets; it multiplies the same rows by the same matrices as
batched products do, which therefore stand in for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


def grouped_product(left: torch.Tensor, right: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """An empty result of `aten._grouped_mm` for rows sorted into groups: torch tells its shape for bf16 alone.

    Rows [S, k] by matrices [groups, k, n] give [S, n]; [k, S] by [S, n], the matrices' gradient, gives [groups, k, n].
    `offsets` [groups] says where each group ends.
    """
    columns = right.shape[-1]
    return (
        left.new_empty(left.shape[0], columns)
        if right.dim() == 3
        else left.new_empty(offsets.shape[0], left.shape[0], columns)
    )


@contextmanager
def batched_experts(model: torch.nn.Module) -> Iterator[bool]:
    """Let experts run as batched products; gives whether the model has any that ran otherwise."""
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)][:1]
    before = [part.get_experts_implementation() for part in parts]
    try:
        for part in parts:
            part.set_experts_implementation("batched_mm")
        yield before != [part.get_experts_implementation() for part in parts]
    finally:
        for part, implementation in zip(parts, before, strict=True):
            part.set_experts_implementation(implementation)
