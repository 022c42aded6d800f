"""Frozen groups of a sharded model (FSDP2) that stay whole in every process instead of being gathered in each pass."""

import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.distributed.fsdp import FSDPModule

from greencore.backprop.shards import free_gathered
from greencore.host_memory import get_available_memory, read_host_memory
from greencore.training.batches.batch_shapes import StepShape
from greencore.training.batches.micro_batches import StepTooLarge, is_out_of_memory
from greencore.training.processes import collect, count_processes

FILE_NAME = "out_of_memory"  # in the folder of a run whose memory has run out
MARGIN = 0.1  # of the memory, which is left free


class WholeGroups:
    """Keeps frozen groups whole from a step of a selection to the next selection, as far as memory allows.

    FSDP2 gathers the tensors of a group, a block for instance, for each pass and frees them after it. As long as none
    of them is trained, each pass gathers the same values. What a step takes is measured on the first one of a
    selection, in which nothing is kept. Passes that do not train, as in an evaluation, have other temporaries: for them
    what was kept is gathered and freed. `longest` is the shape of the largest pass. A model that is not sharded has no
    groups, and unless it is `enabled` nothing is kept.
    """

    def __init__(self, model: torch.nn.Module, longest: StepShape, *, enabled: bool) -> None:
        sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
        found: list[Any] = [group for module in sharded for group in module._get_fsdp_state()._fsdp_param_groups]
        # modules may share a group
        self._model, self._groups = model, list(dict.fromkeys(found)) if enabled and count_processes() > 1 else []
        self._kept: dict[Any, Any] = {}  # with the mesh of processes over which each is split after a forward pass
        self._active, self._chosen = False, not self._groups
        self._longest, self._seen = _measure_size(longest), 1

    def begin_step(self) -> None:
        """Begin a step, which is measured where it is not chosen yet what is kept."""
        if not self._chosen:
            self._seen, device = 1, self._groups[0].device
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)

    def begin_pass(self, shape: StepShape | None) -> None:
        """Begin a forward pass that trains on a batch of this shape, or any other pass (None)."""
        if shape is not None:
            self._seen = max(self._seen, _measure_size(shape))
        self._set_active(shape is not None)

    def end_step(self) -> None:
        """Choose what is kept whole until `release`, by what the step has taken; later steps change nothing.

        Every process calls this, and all keep the same: the first groups, in the order of the model's modules, that
        fit into the memory of the process which has least.
        """
        if self._chosen:
            return
        self._chosen = True
        self._set_active(False)
        room = min(collect(self._measure_room()))
        for group in self._groups:
            if any(part.sharded_param.requires_grad for part in group.fsdp_params):
                continue
            dtype = group.mp_policy.param_dtype
            tensors = [part.sharded_param for part in group.fsdp_params]
            size = sum(tensor.numel() * (dtype or tensor.dtype).itemsize for tensor in tensors)
            if size <= room:
                room -= size
                self._kept[group] = group.post_forward_mesh_info

    def release(self) -> None:
        """Free what is whole, also by an evaluation, so that parameters are shards, which may be trained or probed."""
        self._set_active(False)
        self._kept.clear()
        self._chosen = not self._groups
        free_gathered(self._model)

    def _set_active(self, active: bool) -> None:
        if active == self._active:
            return
        self._active = active
        for group, mesh in self._kept.items():
            group.reshard_after_backward = not active
            group.post_forward_mesh_info = None if active else mesh
            if not active and mesh is not None:  # the outermost one stays whole in a forward pass, which may have begun
                group.reshard()

    def _measure_room(self) -> int:
        """Measure the bytes that the longest step leaves free in this process."""
        device = self._groups[0].device
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            held = torch.cuda.memory_allocated(device)
            free += torch.cuda.memory_reserved(device) - held
            temporary = torch.cuda.max_memory_allocated(device) - held
        else:
            here = int(os.environ.get("LOCAL_WORLD_SIZE", count_processes()))
            free, total = get_available_memory() // here, read_host_memory() // here
            # the peak is that of the process's life, so that what was kept before counts as temporary
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            temporary = max(0, peak - psutil.Process().memory_info().rss)
        # activations grow at most with the square of the length
        return int(free - MARGIN * total - temporary * max(1.0, self._longest / self._seen))


@contextmanager
def allow_whole_groups(folder: Path) -> Iterator[bool]:
    """Yield whether a run may keep groups whole: where it has run out of memory before, none are.

    Such a run is started again (`greencore.training.launch.launcher`).
    """
    file = folder / FILE_NAME
    try:
        yield not any(collect(file.exists()))
    except (RuntimeError, StepTooLarge) as error:
        if isinstance(error, StepTooLarge) or is_out_of_memory(error):
            with suppress(OSError):  # a full disk must not hide the error
                folder.mkdir(parents=True, exist_ok=True)
                file.touch()
        raise


def _measure_size(shape: StepShape) -> int:
    lengths: Sequence[int] = shape.lengths
    return shape.rows * sum(length**2 for length in lengths)
