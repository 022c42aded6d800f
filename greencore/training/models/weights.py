"""A model's tensors by the names of its modules: reading, writing, and a check for non-finite values.

transformers publishes many models under other names and shapes: the experts of a mixture one by one, a
vision-language model's text part without its prefix. `save_pretrained` converts to these and `load_state_dict` does
not convert back, so checkpoints keep the modules' own names.
"""

from collections.abc import Collection, Mapping

import torch

from greencore.backprop.shards import find_invalid, get_shard


class WeightsMismatch(ValueError):
    """Tensors do not match the model's; the message names one of them."""


def named_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and persistent buffers by name; a tied one once, under the name of its source."""
    tied = set(getattr(model, "all_tied_weights_keys", ()))
    state = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name in sorted(state, key=tied.__contains__):
        first.setdefault(id(state[name]), name)
    return {name: state[name] for name in state if first[id(state[name])] == name}


def list_changeable_tensors(model: torch.nn.Module) -> tuple[str, ...]:
    """Return the names of the tensors that a run can change: trainable parameters and persistent buffers."""
    return tuple(
        name
        for name, tensor in named_tensors(model).items()
        if tensor.requires_grad or not isinstance(tensor, torch.nn.Parameter)
    )


def read_tensors(model: torch.nn.Module, names: Collection[str]) -> dict[str, torch.Tensor]:
    """Return the named tensors as safetensors requires them: contiguous, without shared memory."""
    tensors, seen = {}, set()
    for name, tensor in named_tensors(model).items():
        if name not in names:
            continue
        content = tensor.detach().contiguous()
        storage = (content.device, get_shard(content).untyped_storage().data_ptr())
        tensors[name] = content.clone() if storage in seen else content
        seen.add(storage)
    return tensors


def write_tensors(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], names: Collection[str]) -> None:
    """Copy tensors into the model; they must be exactly those of `names`. Raises `WeightsMismatch`."""
    own = named_tensors(model)
    if lacking := sorted(set(names) - tensors.keys()):
        raise WeightsMismatch(f"it lacks {len(lacking)} of the model's {len(names)} tensors, such as {lacking[0]}")
    if unknown := sorted(tensors.keys() - set(names)):
        raise WeightsMismatch(f"it holds {len(unknown)} tensors that the model does not have, such as {unknown[0]}")
    for name, tensor in tensors.items():
        if (tensor.shape, tensor.dtype) != (own[name].shape, own[name].dtype):
            raise WeightsMismatch(f"its {name} is {_describe(tensor)}, and the model's is {_describe(own[name])}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def find_non_finite_tensor(model: torch.nn.Module) -> str | None:
    """Return the name of a parameter with a non-finite value, or of a buffer with a NaN; None where there is none.

    Of a sharded model every process returns the same.
    """
    tensors = {name: tensor for name, tensor in named_tensors(model).items() if tensor.is_floating_point()}
    parameters = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, torch.nn.Parameter)}
    buffers = {name: tensor for name, tensor in tensors.items() if name not in parameters}
    return find_invalid(parameters, torch.isfinite) or find_invalid(buffers, lambda buffer: ~torch.isnan(buffer))


def _describe(tensor: torch.Tensor) -> str:
    return f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
