"""Tensors of a checkpoint in a file for each process, of which any number of processes reads its parts."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from greencore.backprop.shards import get_shard, is_sharded
from greencore.training.processes import agree, collect, count_processes, do_first, get_rank

STARTS = "starts"  # of the parts of sharded tensors along the first dimension, in a file's metadata


def write_tensor_file(folder: Path, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write `name`.safetensors; each of several processes writes a file with its parts, the first also what is whole.

    Every process calls this.
    """
    if count_processes() == 1:
        save_file(dict(tensors), folder / f"{name}.safetensors")
        return
    parts, starts = {}, {}
    for key, tensor in tensors.items():
        if is_sharded(tensor):
            part = get_shard(tensor)
            if part.numel():
                parts[key], starts[key] = part.contiguous(), _get_start(tensor)
        elif get_rank() == 0:
            parts[key] = tensor
    save_file(parts, folder / f"{name}-{get_rank():05}.safetensors", {STARTS: json.dumps(starts)})


@dataclass(frozen=True)
class _Part:
    """Part of a tensor in a file: its first row in the whole, and its shape."""

    start: int
    shape: list[int]
    file: Any


class TensorFiles:
    """The tensors that `write_tensor_file` wrote, by name, whatever number of processes wrote them."""

    def __init__(self, folder: Path, name: str) -> None:
        self._parts: dict[str, list[_Part]] = defaultdict(list)
        for path in sorted([*folder.glob(f"{name}.safetensors"), *folder.glob(f"{name}-[0-9]*.safetensors")]):
            file: Any = safe_open(path, "pt")
            starts = json.loads((file.metadata() or {}).get(STARTS, "{}"))
            for key in file.keys():  # noqa: SIM118  # not a mapping
                self._parts[key].append(_Part(starts.get(key, 0), file.get_slice(key).get_shape(), file))

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def read(self, key: str, like: torch.Tensor | None = None) -> torch.Tensor:
        """Read a tensor: whole, or this process's part where `like` is sharded and of the same shape."""
        parts = sorted(self._parts[key], key=lambda part: part.start)
        shape = parts[0].shape and torch.Size([sum(part.shape[0] for part in parts), *parts[0].shape[1:]])
        if not isinstance(like, DTensor) or like.shape != shape:
            found = [part.file.get_tensor(key) for part in parts]
            return found[0] if len(found) == 1 else torch.cat(found)
        first = _get_start(like)
        last = first + len(get_shard(like))
        found = [
            part.file.get_slice(key)[max(first - part.start, 0) : min(last - part.start, part.shape[0])]
            for part in parts
            if part.start < last and part.start + part.shape[0] > first
        ] or [parts[0].file.get_slice(key)[0:0]]
        return DTensor.from_local(
            torch.cat(found).to(get_shard(like).device),
            like.device_mesh,
            like.placements,
            run_check=False,
            shape=shape,
            stride=like.stride(),
        )


def write_together(write: Callable[[Callable[[Path], None]], None], fill: Callable[[Path], None]) -> None:
    """Let the first process `write` a folder that all of them `fill`; where one cannot, `write` gets its error.

    Every process calls this, and none returns before the folder is complete. Where `write` raises, all raise its error.
    """
    if count_processes() == 1:
        write(fill)
    elif get_rank() == 0:
        begun = False

        def fill_by_all(folder: Path) -> None:
            nonlocal begun
            begun = True
            agree(folder)
            for error in collect(_try(fill, folder)):
                if error is not None:
                    raise error

        def write_once() -> None:
            try:
                write(fill_by_all)
            finally:
                if not begun:
                    agree(None)

        do_first(write_once)
    else:
        nowhere: Path | None = None
        folder = agree(nowhere)
        if folder is not None:
            collect(_try(fill, folder))
        do_first(lambda: None)


def _try(fill: Callable[[Path], None], folder: Path) -> Exception | None:
    try:
        fill(folder)
    except (OSError, SafetensorError, ValueError) as error:
        return error
    return None


def _get_start(tensor: Any) -> int:
    """Return the first row of this process's part on a mesh of one dimension, by `torch.chunk`, as FSDP2 splits."""
    chunk = -(-tensor.shape[0] // tensor.device_mesh.size())
    start: int = min(tensor.device_mesh.get_local_rank() * chunk, tensor.shape[0])
    return start
