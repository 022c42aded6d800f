"""Gradient checkpointing: the forward operators that a step runs again in its backward pass.

A checkpointed block drops the tensors that autograd would save. When the backward pass asks for the first of them, the
block runs again from its start to the last tensor to be saved. What is saved depends on what is trained: an operator
runs again if and only if a tensor saved after it serves a gradient that is needed.

With `use_reentrant=True` the whole block runs again as soon as its output has a gradient. That variant computes no
gradients in a block whose input needs none, so adaptive backpropagation can use it only if the embeddings' outputs
require gradients (`enable_input_require_grads`); it is counted as if they did.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_iter

from greencore.backprop.cost.autograd_graph import Node, get_gradient_node
from greencore.backprop.cost.operator_counter import OperatorRecorder


@dataclass
class CheckpointedBlock:
    """A checkpointed block, which ran `forward[start:stop]` of the recorder.

    `saved` has, for each saved tensor, its position in `forward` and its marker in the recorder's `backward`.
    """

    start: int
    stop: int = 0
    saved: list[tuple[int, int]] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)

    def compute_recomputation_masks(self, recorder: OperatorRecorder, reachable: Mapping[Node, int]) -> list[int]:
        """Compute for each operator the tensors whose gradient makes it run again, as bit masks."""
        masks = [0] * (self.stop - self.start + 1)
        for position, marker in self.saved:
            masks[position - self.start] |= recorder.backward[marker].needed_by(reachable)
        for node in self.outputs:
            masks[-1] |= reachable[node]
        for index in range(len(masks) - 2, -1, -1):
            masks[index] |= masks[index + 1]
        return masks[1:]


@contextmanager
def record_checkpointed_blocks(model: torch.nn.Module, recorder: OperatorRecorder) -> Iterator[list[CheckpointedBlock]]:
    """Run the model's checkpointed blocks without recomputation, and record them."""
    blocks: list[CheckpointedBlock] = []
    functions = {
        module: module._gradient_checkpointing_func
        for module in model.modules()
        if callable(getattr(module, "_gradient_checkpointing_func", None))
    }
    for module, function in functions.items():
        reentrant = bool(getattr(function, "keywords", {}).get("use_reentrant", False))
        module._gradient_checkpointing_func = partial(_run_block, recorder, blocks, reentrant)  # type: ignore[assignment]
    try:
        yield blocks
    finally:
        for module, function in functions.items():
            module._gradient_checkpointing_func = function


def _run_block(
    recorder: OperatorRecorder, blocks: list[CheckpointedBlock], reentrant: bool, block: Callable[..., Any], *args: Any
) -> Any:
    ran = CheckpointedBlock(len(recorder.forward))
    blocks.append(ran)

    def pack(tensor: torch.Tensor) -> Any:
        if recorder.is_paused:
            return tensor.detach()
        marker = recorder.add_marker()
        ran.saved.append((len(recorder.forward), marker))
        return tensor.detach(), marker

    def unpack(saved: tuple[torch.Tensor, int] | torch.Tensor) -> torch.Tensor:
        if isinstance(saved, torch.Tensor):
            return saved
        recorder.attach_marker(*saved)
        return saved[0]

    if reentrant:
        out = block(*args)
        results = [value for value in tree_iter(out) if isinstance(value, torch.Tensor) and value.requires_grad]
        ran.outputs = [get_gradient_node(value) for value in results]
    else:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            out = block(*args)
    ran.stop = len(recorder.forward)
    return out
