"""Peak memory of a job's steps on the live devices, and what a job that fits none of them could change."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from greencore.device import Device, PeakMemory, RunPrecision
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.micro_batch_choice import list_sizes
from greencore.training.run_memory import RunMemory
from planning.device_fit import MemoryNeed
from planning.live_devices import GIGABYTE, find_largest_device, list_gpu_numbers, select_with_gpus
from planning.peak_memory import TracedStep


class DeviceTooSmall(ValueError):
    """A job's steps need more memory than the device of any live worker has; the message says what would fit."""


UNKNOWN_DEVICE = Device("unknown", 0)


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted peak of a job's steps in bytes and the traced step behind it, None where unknown.

    They are those on `device`, the largest live one that holds the job; `recomputes`: its blocks recompute there.
    `needs` has what the job needs in each precision that it would take on a live device.
    """

    peak_bytes: int | None
    traced: TracedStep | None
    recomputes: bool
    device: Device | None
    needs: Mapping[RunPrecision, MemoryNeed] = field(default_factory=dict)


def fit_gpus(
    memory: RunMemory, hyperparameters: Hyperparameters, devices: Sequence[Device | None], *, asked: int | None
) -> tuple[int, MemoryEstimate]:
    """Return the GPUs of a job, those asked for or else the fewest that hold it, and its memory on each of them.

    Only devices of workers with that many count. Raises as `fit_memory` where the most that there are do not hold it.
    """
    numbers = list_gpu_numbers(hyperparameters, devices) if asked is None else [asked]
    for gpus in numbers:
        there = select_with_gpus(devices, gpus)
        try:
            return gpus, fit_memory(replace(memory, processes=gpus), hyperparameters, there)
        except DeviceTooSmall:
            if gpus == numbers[-1]:
                raise
    raise AssertionError("there is a number to try")


def fit_memory(memory: RunMemory, hyperparameters: Hyperparameters, devices: Sequence[Device | None]) -> MemoryEstimate:
    """Predict a job's peak memory on the largest of the live devices that holds it, with recomputation under `auto`.

    Where no device's memory is known, or a device of unknown memory is alive, nothing is refused. Raises
    `DeviceTooSmall` with the figure and what would make it fit.
    """
    largest = find_largest_device(devices)
    known = sorted((device for device in devices if device), key=lambda device: -device.memory_bytes)
    precisions = dict.fromkeys(device.choose_precision(hyperparameters) for device in known)
    needs = {one: need for one in precisions if (need := _trace_need(memory, hyperparameters, one)) is not None}
    holding = [device for device in known if _holds(device, needs.get(device.choose_precision(hyperparameters)))]
    chosen = holding[0] if holding else largest
    precision = (chosen or UNKNOWN_DEVICE).choose_precision(hyperparameters)
    recomputes = hyperparameters.gradient_checkpointing is True
    traced = _trace(memory, hyperparameters, precision)
    need = needs.get(precision)
    if traced is None or chosen is None or need is None:
        return MemoryEstimate(None if traced is None else traced.peak, traced, recomputes, chosen, needs)
    if traced.peak <= chosen.memory_bytes:
        return MemoryEstimate(traced.peak, traced, recomputes, chosen, needs)
    if need.kept <= chosen.memory_bytes:  # a run measures how many rows fit
        return MemoryEstimate(chosen.memory_bytes, traced, recomputes, chosen, needs)
    if holding:
        *_, changed = memory.list_levels(hyperparameters)
        return MemoryEstimate(need.least, _trace(memory, changed, precision), True, chosen, needs)
    if None in devices:
        return MemoryEstimate(traced.peak, traced, recomputes, chosen, needs)
    changes = list(_list_fitting_changes(memory, hyperparameters, chosen))
    of_each = f" in each of {memory.processes} processes" if memory.processes > 1 else ""
    advice = f"it would fit with {' or '.join(changes)}" if changes else "a smaller max_length or model takes less"
    raise DeviceTooSmall(
        f"a step needs{of_each} {traced.peak / GIGABYTE:.3g} of {chosen.memory_bytes / GIGABYTE:.3g} GB on the largest "
        f"device of a live worker ({chosen.name}): {advice}"
    )


def _holds(device: Device, need: MemoryNeed | None) -> bool:
    return need is not None and need.least <= device.memory_bytes


def _trace_need(memory: RunMemory, hyperparameters: Hyperparameters, precision: RunPrecision) -> MemoryNeed | None:
    """Trace what a job needs in a precision, without recomputation and with it, where the settings leave that open.

    Both are traced even where every live device holds the first: a smaller one may be all that is left later.
    """
    peaks = [_get_peak(memory.predict(level, precision)) for level in memory.list_levels(hyperparameters)]
    kept, recomputed = peaks[0], peaks[1] if len(peaks) > 1 else None
    return None if kept is None else MemoryNeed(kept, recomputed)


def _get_peak(found: PeakMemory | None) -> int | None:
    return None if found is None else found.peak


def _trace(memory: RunMemory, hyperparameters: Hyperparameters, precision: RunPrecision) -> TracedStep | None:
    found = memory.predict(hyperparameters, precision)
    if found is None:
        return None
    return TracedStep(
        **asdict(found),
        precision=precision,
        rows=memory.count_rows(hyperparameters),
        tokens=memory.longest_row,
        learned=memory.most_learned,
        several=hyperparameters.batch_size > hyperparameters.rows_at_once * memory.processes,
    )


def _list_fitting_changes(memory: RunMemory, hyperparameters: Hyperparameters, device: Device) -> Iterator[str]:
    """Yield the single changes of the settings with which the job would fit onto the device."""

    def fits(changed: Hyperparameters, method: str | None = None) -> bool:
        found = memory.predict(changed, device.choose_precision(changed), method)
        return found is not None and found.peak <= device.memory_bytes

    recomputed = hyperparameters.model_copy(update={"gradient_checkpointing": True})
    if memory.method != "prefix" and hyperparameters.gradient_checkpointing is not True and fits(recomputed):
        yield "gradient_checkpointing true"
    if hyperparameters.micro_batch_size != "auto":
        for rows in list_sizes(memory.count_rows(hyperparameters))[1:]:
            if fits(hyperparameters.model_copy(update={"micro_batch_size": rows})):
                yield f"micro_batch_size {rows}"
                break
    if memory.method not in ("lora", "prefix") and fits(hyperparameters, "lora"):
        yield "the method lora"
    for gpus in list_gpu_numbers(hyperparameters, [device]):
        if gpus > memory.processes:
            found = replace(memory, processes=gpus).predict(hyperparameters, device.choose_precision(hyperparameters))
            if found is not None and found.peak <= device.memory_bytes:
                yield f"resources.gpus {gpus}"
                break
