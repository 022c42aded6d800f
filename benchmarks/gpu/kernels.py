"""Kernels that a model may run with: PyTorch's attention, flash-attn's, or Liger's norms, rotations and gates."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.gpu.scales import Cell
from greencore.training.models.loading import IMPLEMENTATIONS


def build_model(cell: Cell, device: torch.device) -> PreTrainedModel:
    """Build a cell's model on the device, with random weights in bfloat16.

    Liger's kernels replace transformers' for every model of this process that is built from then on, so that they have
    to come last.
    """
    attention = IMPLEMENTATIONS["flash" if cell.kernels == "flash" else "sdpa"]
    with device:
        model: Any = AutoModelForCausalLM.from_config(
            cell.model.build_config(), dtype=torch.bfloat16, attn_implementation=attention
        )
    assert isinstance(model, PreTrainedModel)
    if cell.kernels == "liger":
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        # The trainer reads the logits, which a loss fused with the output embedding does not have.
        apply_liger_kernel_to_llama(fused_linear_cross_entropy=False, model=model)
    return model
