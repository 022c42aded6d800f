"""Chooses the largest micro-batch that the device's memory holds, by measuring steps of the longest rows."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from greencore.backprop.master_weights import set_gradient_types
from greencore.device import count_bytes_per_weight
from greencore.host_memory import get_available_memory
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.micro_batches import StepTooLarge, is_out_of_memory
from greencore.training.data.tokenisation import IGNORED_LABEL, Example
from greencore.training.processes import recall

FILE_NAME = "micro_batch_choice.json"  # of the choice, in the run's folder
FREE_SHARE = 0.05  # of a device's memory that is left to what no measurement shows: other kernels, fragments
# Saved activations are measured; gradients of activations and temporary tensors take memory beside them.
ACTIVATION_FACTOR = 2.0


@dataclass(frozen=True)
class MicroBatchChoice:
    """The chosen rows of a micro-batch, the device that they were measured on, and the reason in words."""

    rows: int
    device: str
    reason: str


def load_or_measure_micro_batch(
    folder: Path,
    model: torch.nn.Module,
    examples: Sequence[Any],
    hyperparameters: Hyperparameters,
    compute: Callable[[Sequence[Any]], torch.Tensor],
) -> MicroBatchChoice:
    """Return the run's choice from its folder; where there is none for this device, measure and store it.

    `compute` returns the loss of a micro-batch of examples as a step computes it. Tried are the batch size and its
    halves, with every trainable tensor selected. Raises `StepTooLarge` where a single row does
    not fit into the memory of a host, which would end the process.
    """
    device = next(model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    def parse(stored: Any) -> MicroBatchChoice:
        choice = MicroBatchChoice(int(stored["rows"]), str(stored["device"]), str(stored["reason"]))
        if choice.device != name:
            raise ValueError(f"measured on {choice.device}, and the device is {name}")
        return choice

    def measure() -> dict[str, Any]:
        rows = sorted(examples, key=_count_tokens, reverse=True)
        choose = _try_sizes if device.type == "cuda" else _divide_memory
        generators = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=generators):
            model.train()
            try:
                size, reason = choose(model, rows, hyperparameters, compute)
            finally:
                model.zero_grad()
        return asdict(MicroBatchChoice(size, name, reason))

    return recall(folder / FILE_NAME, measure, parse)


def _count_tokens(example: Example) -> int:
    """Count a row's tokens and learned tokens, since both take memory."""
    return len(example.input_ids) + sum(label != IGNORED_LABEL for label in example.labels)


def list_sizes(batch_size: int) -> list[int]:
    """List the micro-batches that are tried: the batch, and its halves down to one row."""
    sizes = [batch_size]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    return sizes


def _try_sizes(
    model: torch.nn.Module,
    rows: Sequence[Any],
    hyperparameters: Hyperparameters,
    compute: Callable[[Sequence[Any]], torch.Tensor],
) -> tuple[int, str]:
    """Run two micro-batches of the longest rows, beside as much memory as the optimiser's state will take."""
    device = next(model.parameters()).device
    total = torch.cuda.get_device_properties(device).total_memory
    held_back = _count_state_bytes(model, hyperparameters) + int(FREE_SHARE * total)
    sizes = list_sizes(min(hyperparameters.batch_size, len(rows)))
    for size in sizes:
        state = None
        set_gradient_types(model.parameters(), parts=1 if size == sizes[0] else 2)
        try:
            state = torch.empty(held_back, dtype=torch.uint8, device=device)
            for _ in range(2):  # the second while the gradients of the first are there
                compute(rows[:size]).backward()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return size, f"a step of the {size} longest rows fits into {total / 2**30:.3g} GiB"
        finally:
            del state  # before the next size: it is held back once
        model.zero_grad()
        gc.collect()
        torch.cuda.empty_cache()
    # Fewer tensors than all may be selected: then a row still fits, and otherwise the step says that it does not.
    return 1, "with every tensor selected not even one row fits"


def _divide_memory(
    model: torch.nn.Module,
    rows: Sequence[Any],
    hyperparameters: Hyperparameters,
    compute: Callable[[Sequence[Any]], torch.Tensor],
) -> tuple[int, str]:
    """Divide the available memory by what the longest row takes: a host that runs out kills the process."""
    available = get_available_memory()
    a_row = ACTIVATION_FACTOR * measure_saved_bytes(model, lambda: compute(rows[:1]))
    sizes = list_sizes(min(hyperparameters.batch_size, len(rows)))
    for size in sizes:
        set_gradient_types(model.parameters(), parts=1 if size == sizes[0] else 2)
        gradients = sum(p.numel() * (p.grad_dtype or p.dtype).itemsize for p in model.parameters() if p.requires_grad)
        left = (1 - FREE_SHARE) * available - gradients - _count_state_bytes(model, hyperparameters)
        if size * a_row <= left:
            reason = f"the longest row takes {a_row / 2**20:.3g} MiB of the {left / 2**20:.3g} MiB that are left"
            return size, reason
    raise _single_row_too_large(available)


def measure_saved_bytes(model: torch.nn.Module, compute: Callable[[], torch.Tensor]) -> int:
    """Measure the memory that a forward pass keeps for its backward pass, in bytes, without the model's weights."""
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compute()
    return sum(kept.values())


def _count_state_bytes(model: torch.nn.Module, hyperparameters: Hyperparameters) -> int:
    """Count the bytes of the optimiser's state with every trainable tensor selected."""
    whole, half = (count_bytes_per_weight(hyperparameters, precision).state for precision in ("fp32", "bf16"))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return sum(p.numel() * (half if p.element_size() < 4 else whole) for p in trained)


def _single_row_too_large(memory: int) -> StepTooLarge:
    return StepTooLarge(
        f"a single row at a time does not fit into the device's {memory / 2**30:.3g} GiB: a smaller max_length, or a "
        "smaller model, takes less"
    )
