"""Selection of the GPUs that a process uses: those visible to it, or those that the caller names."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WHOLE_GPU = "the whole GPU of a MIG instance"
ORDER_ASSUMED = "device order assumed"

GpuId = int | str


class GpuNotFound(ValueError):
    """A named GPU does not exist on this machine."""


MigParent = Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU in the driver's management library: its index, UUID ("GPU-…") and model name."""

    index: int
    uuid: str
    name: str


@dataclass(frozen=True, slots=True)
class GpuSelection:
    """Indices of the selected GPUs, ascending, and notes on the selection for the measurement method.

    `names` are the entries by which CUDA_VISIBLE_DEVICES names each of them, in CUDA's order, the UUIDs where it is
    unset; the first is the one that a process uses where it asks for none, and `first` its index.
    """

    indices: tuple[int, ...]
    notes: tuple[str, ...] = ()
    first: int | None = field(default=None, compare=False)
    names: tuple[str, ...] = field(default=(), compare=False)


def select_visible_gpus(
    environment: Mapping[str, str], gpus: Sequence[Gpu], *, mig_parent: MigParent, amd: bool = False
) -> GpuSelection:
    """Select the GPUs visible in an environment, by the rules of the CUDA programming guide for CUDA_VISIBLE_DEVICES.

    Unset selects all GPUs; empty or "-1" none. It lists indices, or UUIDs ("GPU-…", "MIG-…", "MIG-GPU-…/1/0") or
    unique prefixes of them. Entries after one that names no GPU are ignored, and a repeated entry hides all GPUs.
    A MIG instance selects its whole GPU, since energy is not counted per instance, with a note. On machines with
    several models CUDA numbers the fastest first unless CUDA_DEVICE_ORDER is PCI_BUS_ID, while energy is counted in
    bus order: there an index is taken in bus order, with a note. For AMD the variable is HIP_VISIBLE_DEVICES, then
    ROCR_VISIBLE_DEVICES, then CUDA_VISIBLE_DEVICES. `mig_parent` returns the index of the GPU of a MIG instance's
    UUID, or None.
    """
    names = (
        ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES") if amd else ("CUDA_VISIBLE_DEVICES",)
    )
    listed = next((environment[name] for name in names if name in environment), None)
    if listed is None:
        ordered = sorted(gpus, key=lambda gpu: gpu.index)
        everything = tuple(gpu.index for gpu in ordered)
        return GpuSelection(everything, first=next(iter(everything), None), names=tuple(gpu.uuid for gpu in ordered))
    seen, indices, notes, entries = set[str](), dict[int, None](), set[str](), list[str]()
    for entry in (entry.strip() for entry in listed.split(",")):
        number = re.match(r"\d+", entry)
        index = _by_index(int(number[0]), gpus) if number else _by_uuid(entry, gpus, mig_parent)
        if index is None:
            break
        key = number[0].lstrip("0") if number else entry
        if key in seen:
            return GpuSelection(())
        seen.add(key)
        indices[index] = None
        entries.append(entry)
        if entry.startswith("MIG-"):
            notes.add(WHOLE_GPU)
        if number and not amd and _order_matters(environment, gpus):
            notes.add(ORDER_ASSUMED)
    if len(indices) == len(gpus):
        notes.discard(ORDER_ASSUMED)
    return GpuSelection(
        tuple(sorted(indices)), tuple(sorted(notes)), first=next(iter(indices), None), names=tuple(entries)
    )


def select_gpus(gpu_ids: Sequence[GpuId], gpus: Sequence[Gpu], *, mig_parent: MigParent) -> GpuSelection:
    """Select the GPUs of `gpu_ids`: bus indices, as in nvidia-smi, or UUIDs as in `select_visible_gpus`.

    A UUID may lack its "GPU-", as in PyTorch. Raises `GpuNotFound` with the first entry that names no GPU.
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


def find_mig_parent(uuid: str, nvml: Any) -> int | None:
    """Return the index of the GPU that contains a MIG instance, or None where the instance does not exist.

    `nvml` is the module pynvml, initialised, or None where it is not installed.
    """
    if nvml is None:
        return None
    try:
        instance = nvml.nvmlDeviceGetHandleByUUID(uuid)
        return int(nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)))
    except nvml.NVMLError:
        return None


def _by_index(index: int, gpus: Sequence[Gpu]) -> int | None:
    return index if any(gpu.index == index for gpu in gpus) else None


def _by_uuid(uuid: str, gpus: Sequence[Gpu], mig_parent: MigParent) -> int | None:
    """Return the index of the only GPU whose UUID has this prefix, or of the GPU of this MIG instance."""
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
