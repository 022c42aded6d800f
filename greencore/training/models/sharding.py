"""How a model is split over processes by FSDP2, for any transformers model."""

import re

from transformers import PreTrainedModel
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

LAYER_NUMBER = re.compile(r"\.\d+(?=\.|$)")


def count_gathered(skeleton: PreTrainedModel) -> tuple[int, int]:
    """Count the weights that are whole in each process at once, and of these the most that one gathering has.

    What is outside of all blocks stays whole from the forward to the end of the backward pass; of the blocks the one
    that runs is, and the next, which is gathered ahead.
    """
    blocks = [module for module in skeleton.modules() if isinstance(module, GradientCheckpointingLayer)]
    within = {id(p) for block in blocks for p in block.parameters()}
    outside = sum(p.numel() for p in skeleton.parameters() if id(p) not in within)
    largest = max((sum(p.numel() for p in block.parameters()) for block in blocks), default=0)
    return outside + 2 * largest, max(outside, largest)


def plan_shards(skeleton: PreTrainedModel, *, processes: int) -> DistributedConfig:
    """Plan how each tensor is split over the processes of a run, along its first dimension.

    Each block is gathered as it runs and freed after it, so that the largest temporary copy is that of a block, or of
    what is outside of all blocks: embeddings, the output embedding. `skeleton` may be on the meta device.
    """
    blocks = {
        LAYER_NUMBER.sub(".*", name)
        for name, module in skeleton.named_modules()
        if isinstance(module, GradientCheckpointingLayer)
    }
    plan = dict.fromkeys(sorted(blocks), "free_full_weight")
    return DistributedConfig(fsdp_size=processes, fsdp_plan=plan)
