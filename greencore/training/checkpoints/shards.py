"""Tensors of a checkpoint in a file for each process, of which any number of processes reads its parts."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from greencore.backprop.shards import get_shard, is_sharded
from greencore.training.processes import agree, collect, count_processes, get_rank

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


class TensorFiles:
    """The tensors that `write_tensor_file` wrote, by name, whatever number of processes wrote them."""

    def __init__(self, folder: Path, name: str) -> None:
        self._parts: dict[str, list[tuple[int, Path]]] = defaultdict(list)
        for file in sorted([*folder.glob(f"{name}.safetensors"), *folder.glob(f"{name}-[0-9]*.safetensors")]):
            with safe_open(file, "pt") as content:
                starts = json.loads((content.metadata() or {}).get(STARTS, "{}"))
                for key in content.keys():  # noqa: SIM118  # not a mapping
                    self._parts[key].append((starts.get(key, 0), file))

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def read(self, key: str, like: torch.Tensor | None = None) -> torch.Tensor:
        """Read a tensor: whole, or this process's part where `like` is sharded and of the same shape."""
        slices = []
        for start, file in sorted(self._parts[key]):
            with safe_open(file, "pt") as content:
                if not content.get_slice(key).get_shape():
                    return content.get_tensor(key)  # type: ignore[no-any-return]
                slices.append((start, content.get_slice(key).get_shape(), file))
        rows = sum(shape[0] for _, shape, _ in slices)
        whole = torch.Size([rows, *slices[0][1][1:]])
        if not isinstance(like, DTensor) or like.shape != whole:
            return torch.cat([self._read_rows(key, file, 0, shape[0]) for _, shape, file in slices])
        first = _get_start(like)
        last = first + len(get_shard(like))
        found = [
            self._read_rows(key, file, max(first - start, 0), min(last - start, shape[0]))
            for start, shape, file in slices
            if start < last and start + shape[0] > first
        ]
        part = torch.cat(found) if found else torch.empty((0, *whole[1:]), dtype=like.dtype)
        return DTensor.from_local(
            part.to(get_shard(like).device),
            like.device_mesh,
            like.placements,
            run_check=False,
            shape=whole,
            stride=like.stride(),
        )

    @staticmethod
    def _read_rows(key: str, file: Path, first: int, last: int) -> torch.Tensor:
        with safe_open(file, "pt") as content:
            return content.get_slice(key)[first:last]  # type: ignore[no-any-return]


def write_together(write: Callable[[Callable[[Path], None]], None], fill: Callable[[Path], None]) -> None:
    """Let the first process `write` a folder that all of them `fill`; where one cannot, `write` gets its error.

    Every process calls this, and none returns before the folder is complete.
    """
    if count_processes() == 1:
        write(fill)
        return
    if get_rank() > 0:
        nowhere: Path | None = None
        folder = agree(nowhere)
        if folder is not None:
            collect(_try(fill, folder))
        agree(None)
        return
    begun = False

    def fill_by_all(folder: Path) -> None:
        nonlocal begun
        begun = True
        agree(folder)
        for error in collect(_try(fill, folder)):
            if error is not None:
                raise error

    write(fill_by_all)
    if not begun:
        agree(None)
    agree(None)


def _try(fill: Callable[[Path], None], folder: Path) -> Exception | None:
    try:
        fill(folder)
    except (OSError, SafetensorError, ValueError) as error:
        return error
    return None


def _get_start(tensor: Any) -> int:
    """Return the first row of this process's part, by the rule of `torch.chunk`, which FSDP2 follows."""
    chunk = -(-tensor.shape[0] // tensor.device_mesh.size())
    start: int = min(tensor.device_mesh.get_local_rank() * chunk, tensor.shape[0])
    return start
