"""Mixtures of experts in a trace, which has no values to route tokens by.

A token is multiplied by `num_experts_per_tok` experts whichever they are, so a step's FLOPs are those of tokens ×
experts per token, and so are those of the gradients. Grouped products, transformers' default, show that in their
shapes. The loop over experts reads which tokens each of them gets; it multiplies the same rows by the same matrices as
batched products do, which therefore stand in for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def make_grouped_matmul_output(left: torch.Tensor, right: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
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
def use_batched_experts(model: torch.nn.Module) -> Iterator[None]:
    """Let the experts of a model of transformers, if it has any, run as batched products."""
    outermost: Any = next((part for part in model.modules() if hasattr(part, "set_experts_implementation")), None)
    if outermost is None:
        yield
        return
    before = outermost.get_experts_implementation()
    outermost.set_experts_implementation("batched_mm")
    try:
        yield
    finally:
        outermost.set_experts_implementation(before)
