"""A model's weights under the names that its modules hold, and whether they are finite.

transformers publishes many models under other names and in other shapes: the experts of a mixture one by one, a
vision-language model's text part without its prefix. `save_pretrained` converts to these, `load_state_dict` does not
convert back, so what has to return into the same modules is kept under their own names.
"""

from collections.abc import Collection, Mapping

import torch


class WeightsMismatch(ValueError):
    """The tensors are not those of the model; the message names one of each kind."""


def named_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers by name; a shared one once, under the name that the others are tied to."""
    tied = set(getattr(model, "all_tied_weights_keys", ()))
    state = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name in sorted(state, key=tied.__contains__):
        first.setdefault(id(state[name]), name)
    return {name: state[name] for name in state if first[id(state[name])] == name}


def list_changeable_tensors(model: torch.nn.Module) -> tuple[str, ...]:
    """The names of what a run can change: parameters that are not frozen, and persistent buffers."""
    return tuple(
        name
        for name, tensor in named_tensors(model).items()
        if tensor.requires_grad or not isinstance(tensor, torch.nn.Parameter)
    )


def read_tensors(model: torch.nn.Module, names: Collection[str]) -> dict[str, torch.Tensor]:
    """The named tensors as a safetensors file can hold them: contiguous, and none in the memory of another."""
    tensors, seen = {}, set()
    for name, tensor in named_tensors(model).items():
        if name not in names:
            continue
        content = tensor.detach().contiguous()
        storage = (content.device, content.untyped_storage().data_ptr())
        tensors[name] = content.clone() if storage in seen else content
        seen.add(storage)
    return tensors


def write_tensors(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], names: Collection[str]) -> None:
    """Copy the tensors into the model's own, which are to be just the named ones. Raises `WeightsMismatch`."""
    own = named_tensors(model)
    if lacking := sorted(set(names) - tensors.keys()):
        raise WeightsMismatch(f"it lacks {len(lacking)} of the model's {len(names)} tensors, {lacking[0]} among them")
    if unknown := sorted(tensors.keys() - set(names)):
        raise WeightsMismatch(f"it holds {len(unknown)} tensors that the model has not, {unknown[0]} among them")
    for name, tensor in tensors.items():
        if (tensor.shape, tensor.dtype) != (own[name].shape, own[name].dtype):
            raise WeightsMismatch(f"its {name} is {_described(tensor)}, and the model's own is {_described(own[name])}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def find_non_finite_tensor(model: torch.nn.Module) -> str | None:
    """The name of a parameter with a value that is not finite, or of a buffer with one that is no number."""
    for name, tensor in named_tensors(model).items():
        if not tensor.is_floating_point():
            continue
        sound = torch.isfinite(tensor) if isinstance(tensor, torch.nn.Parameter) else ~torch.isnan(tensor)
        if not bool(sound.all()):
            return name
    return None


def _described(tensor: torch.Tensor) -> str:
    return f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
