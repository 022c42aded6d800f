"""Tracing of mixtures of experts, whose routing of tokens depends on values that a trace does not have.

Each token is multiplied by `num_experts_per_tok` experts, so the FLOPs, of gradients too, are those of tokens × experts
per token under any routing. Grouped products, transformers' default, have that in their shapes. The loop over experts
reads the routing; it is traced as batched products, which multiply the same rows by the same matrices.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def make_grouped_matmul_output(left: torch.Tensor, right: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Allocate the result of `aten._grouped_mm` for rows sorted into groups; torch infers its shape for bf16 only.

    Rows [S, k] by matrices [groups, k, n] give [S, n]; [k, S] by [S, n], the matrices' gradient, gives [groups, k, n].
    `offsets` [groups] is the end of each group.
    """
    columns = right.shape[-1]
    return (
        left.new_empty(left.shape[0], columns)
        if right.dim() == 3
        else left.new_empty(offsets.shape[0], left.shape[0], columns)
    )


@contextmanager
def use_batched_experts(model: torch.nn.Module) -> Iterator[None]:
    """Run the experts of a transformers model, if it has any, as batched products."""
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
