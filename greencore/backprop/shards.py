"""Tensors of which each process holds a part (FSDP2's DTensors), and sums over all parts."""

from collections.abc import Callable, Mapping

import torch
import torch.distributed
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def get_shard(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a tensor, which may be empty; a tensor that is not sharded is its own."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether each process holds a part of the tensor."""
    return isinstance(tensor, DTensor)


def sum_over_shards(values: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Sum a value of each named tensor over its parts, in one all-reduce; the same result in every process.

    A value is a scalar of this process's part. That of a tensor that is not sharded stays as it is. All processes call
    this with the same names in the same order.
    """
    sharded = [name for name in values if is_sharded(tensors[name])]
    if not sharded:
        return dict(values)
    device = get_shard(tensors[sharded[0]]).device
    # the parts of a tensor that is sharded within replicas (HSDP) are counted once for each replica
    summed = torch.stack([values[name].to(device, torch.float64) / _count_copies(tensors[name]) for name in sharded])
    torch.distributed.all_reduce(summed)
    return {**values, **dict(zip(sharded, summed, strict=True))}


def norm_over_shards(norms: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Combine the norms of each named tensor's parts into its norm; otherwise as `sum_over_shards`."""
    sharded = {name for name in norms if is_sharded(tensors[name])}
    squares = {name: norm.double() ** 2 if name in sharded else norm for name, norm in norms.items()}
    summed = sum_over_shards(squares, tensors)
    return {name: value.sqrt().to(norms[name].dtype) if name in sharded else value for name, value in summed.items()}


def find_invalid(tensors: Mapping[str, torch.Tensor], is_valid: Callable[[torch.Tensor], torch.Tensor]) -> str | None:
    """Return the first tensor with an element that is not valid, by name; where some are sharded, for all processes.

    `is_valid` returns a truth value for each element. All processes call this with the same names in the same order.
    """
    names = list(tensors)
    found = next((i for i, name in enumerate(names) if not bool(is_valid(get_shard(tensors[name])).all())), len(names))
    sharded = next((tensor for tensor in tensors.values() if is_sharded(tensor)), None)
    if sharded is not None:
        first = torch.tensor(found, device=get_shard(sharded).device)
        torch.distributed.all_reduce(first, torch.distributed.ReduceOp.MIN)
        found = int(first)
    return names[found] if found < len(names) else None


def _count_copies(tensor: torch.Tensor) -> int:
    """Count the processes that hold the same part of a tensor."""
    assert isinstance(tensor, DTensor)
    parts = 1
    for placement, size in zip(tensor.placements, tensor.device_mesh.shape, strict=True):
        parts *= size if placement.is_shard() else 1
    return torch.distributed.get_world_size() // parts


def free_gathered(model: torch.nn.Module) -> None:
    """Free what a forward pass without a backward pass has gathered, so that the model's parameters are its shards.

    FSDP2 keeps the outermost module's tensors gathered until then: what is frozen or hooked meanwhile is a copy.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def count_sharded_dimensions(tensor: torch.Tensor) -> int:
    """Count the dimensions of the process mesh along which a tensor is split."""
    return sum(placement.is_shard() for placement in tensor.placements) if isinstance(tensor, DTensor) else 0
