"""The whole model of a sharded run, for its result."""

from pathlib import Path

import torch
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.methods.baselines import add_adapter
from greencore.training.models.loading import load_model
from greencore.training.models.weights import named_tensors, write_tensors
from greencore.training.processes import count_processes, get_rank


def gather_model(
    model: PreTrainedModel, folder: Path, method: str, hyperparameters: Hyperparameters
) -> PreTrainedModel | None:
    """Return the model whole: itself in a run of one process, else a copy in the first one's memory, None in others.

    `folder` is that of the base model. Every process calls this.
    """
    if count_processes() == 1:
        return model
    first = get_rank() == 0
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in named_tensors(model).items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if first:
            tensors[name] = whole.detach().cpu()
    if not first:
        return None
    base = load_model(folder, next(iter(model.parameters())).dtype)
    base.generation_config = model.generation_config
    copy = add_adapter(method, base, hyperparameters.lora)
    write_tensors(copy, tensors, named_tensors(copy).keys())
    return copy
