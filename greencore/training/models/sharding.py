"""How a model is split over processes by FSDP2, for any transformers model."""

import re

from transformers import PreTrainedModel
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

LAYER_NUMBER = re.compile(r"\.\d+(?=\.|$)")


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
