"""What a run over several processes may look like: replicas (DDP) or shards (FSDP2) of the whole model."""

from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from transformers import TrainingArguments

from greencore.backprop.shards import count_sharded_dimensions, is_sharded
from greencore.training.methods.baselines import forward_one_token


class ParallelismUnsupported(ValueError):
    """The model is distributed in a way in which tensors cannot be selected; the message says which, and what works."""


def prepare_sharded_model(model: Any, args: TrainingArguments) -> None:
    """Check how the model is distributed, and let FSDP2 see all its tensors before any is frozen.

    Every process calls this. Raises `ParallelismUnsupported`.
    """
    if (found := _find_unsupported(model, args)) is not None:
        raise ParallelismUnsupported(
            f"{found} is not supported: tensors are frozen and measured one by one. A model in replicas (DDP) is, and "
            "one that is sharded by FSDP2, as from_pretrained(distributed_config=DistributedConfig(fsdp_size=N)) does"
        )
    initialise_sharding(model)


def initialise_sharding(model: Any) -> None:
    """Run a first forward pass through a sharded model, in which FSDP2 allocates and learns what it keeps.

    A group that is frozen in it never learns the type that its gradients are reduced in (pytorch #186998), and what is
    allocated in inference mode cannot be trained in. Every process calls this.
    """
    if any(isinstance(module, FSDPModule) for module in model.modules()):
        forward_one_token(model, use_cache=False)


def _find_unsupported(model: torch.nn.Module, args: TrainingArguments) -> str | None:
    if args.deepspeed or any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        return "DeepSpeed"
    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        return "FSDP1, which keeps a block's tensors in one flat parameter,"
    sharded = [parameter for parameter in model.parameters() if is_sharded(parameter)]
    if sharded and not any(isinstance(module, FSDPModule) for module in model.modules()):
        return "tensor parallelism"
    if any(count_sharded_dimensions(parameter) > 1 for parameter in sharded):
        return "tensor or expert parallelism beside FSDP2"
    return None
