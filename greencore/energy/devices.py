"""Which of a machine's GPUs a process uses: those that it can see, or those that it was told of."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WHOLE_GPU = "the whole GPU of a MIG instance"
ORDER_ASSUMED = "device order assumed"

GpuId = int | str


class GpuNotFound(ValueError):
    """A GPU was named that this machine does not have."""


MigParent = Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as its driver's management library lists it: its index there, its UUID ("GPU-…") and its model."""

    index: int
    uuid: str
    name: str


@dataclass(frozen=True, slots=True)
class GpuSelection:
    """The indices of the chosen GPUs, ascending, and what has to be said of the choice."""

    indices: tuple[int, ...]
    notes: tuple[str, ...] = ()


def select_visible_gpus(
    environment: Mapping[str, str], gpus: Sequence[Gpu], *, mig_parent: MigParent, amd: bool = False
) -> GpuSelection:
    """The GPUs that a process of this environment can see, as the CUDA programming guide says of CUDA_VISIBLE_DEVICES.

    Unset, it shows all; empty or "-1", none. It lists indices, or UUIDs ("GPU-…", "MIG-…", "MIG-GPU-…/1/0", each as
    far as it is unique); whatever follows an entry that names no GPU is not seen, and an entry given twice hides all.
    A MIG instance stands for its whole GPU, as no energy is counted for a part of one, and is noted. On machines with
    several models CUDA counts the fastest first unless CUDA_DEVICE_ORDER is PCI_BUS_ID, while energy is counted by
    place on the bus: there a choice by index is taken in bus order, and noted. For AMD, the variable is
    HIP_VISIBLE_DEVICES or else ROCR_VISIBLE_DEVICES, before CUDA_VISIBLE_DEVICES. `mig_parent` gives the index of the
    GPU that holds the MIG instance of a UUID, or None.
    """
    names = (
        ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES") if amd else ("CUDA_VISIBLE_DEVICES",)
    )
    listed = next((environment[name] for name in names if name in environment), None)
    if listed is None:
        return GpuSelection(tuple(sorted(gpu.index for gpu in gpus)))
    seen, indices, notes = set[str](), set[int](), set[str]()
    for entry in (entry.strip() for entry in listed.split(",")):
        number = re.match(r"\d+", entry)
        index = _by_index(int(number[0]), gpus) if number else _by_uuid(entry, gpus, mig_parent)
        if index is None:
            break
        key = number[0].lstrip("0") if number else entry
        if key in seen:
            return GpuSelection(())
        seen.add(key)
        indices.add(index)
        if entry.startswith("MIG-"):
            notes.add(WHOLE_GPU)
        if number and not amd and _order_matters(environment, gpus):
            notes.add(ORDER_ASSUMED)
    if len(indices) == len(gpus):
        notes.discard(ORDER_ASSUMED)
    return GpuSelection(tuple(sorted(indices)), tuple(sorted(notes)))


def select_gpus(gpu_ids: Sequence[GpuId], gpus: Sequence[Gpu], *, mig_parent: MigParent) -> GpuSelection:
    """The GPUs that `gpu_ids` names: bus indices, as nvidia-smi counts them, or UUIDs as in `select_visible_gpus`.

    A UUID may lack its "GPU-", as PyTorch gives it. Raises `GpuNotFound`, naming the entry, where one names no GPU.
    """
    indices, notes = set[int](), set[str]()
    for place, gpu_id in enumerate(gpu_ids):
        index = _by_index(gpu_id, gpus) if isinstance(gpu_id, int) else _by_uuid(gpu_id, gpus, mig_parent)
        if index is None and isinstance(gpu_id, str):
            index = _by_uuid(f"GPU-{gpu_id}", gpus, mig_parent)
        if index is None:
            known = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in gpus) or "none"
            raise GpuNotFound(f"gpu_ids[{place}] is {gpu_id!r}: expected one of this machine's GPUs, which are {known}")
        indices.add(index)
        if isinstance(gpu_id, str) and gpu_id.startswith("MIG-"):
            notes.add(WHOLE_GPU)
    return GpuSelection(tuple(sorted(indices)), tuple(sorted(notes)))


def _by_index(index: int, gpus: Sequence[Gpu]) -> int | None:
    return index if any(gpu.index == index for gpu in gpus) else None


def _by_uuid(uuid: str, gpus: Sequence[Gpu], mig_parent: MigParent) -> int | None:
    """The index of the one GPU whose UUID begins so, or that holds this MIG instance."""
    if uuid.startswith("MIG-GPU-"):
        uuid = uuid.removeprefix("MIG-").partition("/")[0]
    elif uuid.startswith("MIG-"):
        return mig_parent(uuid)
    if not uuid.removeprefix("GPU-") or not uuid.startswith("GPU-"):
        return None
    found = [gpu.index for gpu in gpus if gpu.uuid.startswith(uuid)]
    return found[0] if len(found) == 1 else None


def _order_matters(environment: Mapping[str, str], gpus: Sequence[Gpu]) -> bool:
    return environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID" and len({gpu.name for gpu in gpus}) > 1
