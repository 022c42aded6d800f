"""Importance probe of a run: the rows that it draws, its loss scale, and what it costs (paper §3.2)."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed
from transformers import TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from greencore.backprop.importance import BatchParts, NotFinite, importance
from greencore.backprop.shards import is_sharded
from greencore.settings.method_settings import Metric
from greencore.training.batches.batch_shapes import get_step_shape, is_encoder_decoder, is_stream
from greencore.training.batches.micro_batches import (
    MicroBatchCollator,
    collate_in_parts,
    compute_shares,
)
from greencore.training.data.tokenisation import to_device
from greencore.training.methods.modes import in_mode
from greencore.training.methods.step_costs import StepCosts


@dataclass(frozen=True)
class ProbeResult:
    """Importance of each named tensor, and the FLOPs and seconds of measuring it, in this process."""

    importance: Mapping[str, float]
    flops: int
    seconds: float


class ImportanceProbe:
    """Measures importance on `batches` batches of training rows, each as large as a training batch.

    The rows are drawn by a separate generator from the run's seed and the probe's number, so the run's random state is
    unchanged and a resumed run draws the same rows. Dropout is off, since its noise would enter every tensor's
    importance. With several processes each measures its own part of every batch and the gradients are averaged as they
    arrive, so all get the same result.
    """

    def __init__(self, metric: Metric, batches: int) -> None:
        if batches < 1:
            raise ValueError(f"probe_batches is {batches}: expected at least 1")
        self._metric: Metric = metric
        self.batches = batches

    def measure(
        self,
        model: torch.nn.Module,
        optimizer: Any,
        dataloader: Any,
        args: TrainingArguments,
        *,
        names: Collection[str],
        number: int,
        costs: StepCosts,
    ) -> ProbeResult:
        """Measure the named tensors on the rows of probe `number`. Raises `NotFinite`, `ValueError`."""
        started = time.perf_counter()
        drawn = list(_draw_rows(dataloader, args, number=number, amount=self.batches))

        def measure() -> ProbeResult:
            return self._measure(model, optimizer, drawn, dataloader, args, names=names, costs=costs)

        collate = dataloader.collate_fn
        probed = collate.run_within_memory(measure) if isinstance(collate, MicroBatchCollator) else measure()
        return replace(probed, seconds=time.perf_counter() - started)

    def _measure(
        self,
        model: torch.nn.Module,
        optimizer: Any,
        drawn: Sequence[Sequence[Any] | Mapping[str, Any]],
        dataloader: Any,
        args: TrainingArguments,
        *,
        names: Collection[str],
        costs: StepCosts,
    ) -> ProbeResult:
        encoder, scale, flops = is_encoder_decoder(model), get_loss_scale(optimizer), 0.0
        batches = [_collate(rows, dataloader, args, encoder=encoder) for rows in drawn]

        def count_pass(_: Any, args: Any, batch: Mapping[str, Any]) -> None:
            nonlocal flops
            flops += costs.step_flops(names, get_step_shape(batch, encoder=encoder))

        hook = model.register_forward_pre_hook(count_pass, with_kwargs=True)
        try:
            while True:
                try:
                    with _disable_dropout(model):
                        values = importance(
                            model,
                            batches,
                            optimizer,
                            self._metric,
                            names=names,
                            max_grad_norm=args.max_grad_norm or None,
                            loss_scale=scale,
                            average=_sum_gradient if args.world_size > 1 else None,
                        )
                    return ProbeResult(values, round(flops), 0.0)
                except NotFinite:
                    if scale <= 1:
                        raise
                    # fp16 overflowed at the scaler's current scale; a step would be skipped and the scale halved
                    scale /= 2
        finally:
            hook.remove()


def _draw_rows(
    dataloader: Any, args: TrainingArguments, *, number: int, amount: int
) -> Iterator[Sequence[Any] | Mapping[str, Any]]:
    """Draw the rows of this process's part of each batch; of a stream, its first batches, collated."""
    dataset = dataloader.dataset
    if is_stream(dataset):
        stream = iter(dataloader)
        for _ in range(amount):
            yield next(stream)
        return
    rows, processes = args.per_device_train_batch_size, count_probing_processes(dataloader, args)
    generator = torch.Generator().manual_seed(args.seed * 1_000_003 + number)
    drawn = torch.randperm(len(dataset), generator=generator).tolist()
    wanted = amount * processes * rows
    drawn = (drawn * -(-wanted // len(drawn)))[:wanted] if processes > 1 else drawn[:wanted]
    for start in range(0, len(drawn), processes * rows):
        own = start + (args.process_index * rows if processes > 1 else 0)
        yield [dataset[index] for index in drawn[own : own + rows]]


def count_probing_processes(dataloader: Any, args: TrainingArguments) -> int:
    """Count the processes that each draw a batch: one where the collator takes this process's part of it."""
    return 1 if isinstance(dataloader.collate_fn, MicroBatchCollator) else args.world_size


def _collate(
    rows: Sequence[Any] | Mapping[str, Any], dataloader: Any, args: TrainingArguments, *, encoder: bool
) -> BatchParts:
    """Collate the rows of a batch as the run's steps do, in micro-batches where it has them.

    With several processes the parts' shares are those in the learned tokens of all processes' rows.
    """
    parts = [rows] if isinstance(rows, Mapping) else collate_in_parts(dataloader, rows)
    shares = compute_shares(parts, encoder=encoder, everywhere=args.world_size > 1)
    return BatchParts([to_device(part, args.device) for part in parts], shares)


def _sum_gradient(_: int, gradient: torch.Tensor) -> None:
    """Sum a gradient over processes; each is weighted by its share of the batch. FSDP2 has averaged a sharded one."""
    if is_sharded(gradient):
        gradient.mul_(torch.distributed.get_world_size())
    else:
        torch.distributed.all_reduce(gradient)


def get_loss_scale(optimizer: Any) -> float:
    """Return the loss scale of fp16 autocast, which prevents underflow; 1 without a scaler."""
    scaler = getattr(optimizer, "scaler", None)
    return float(scaler.get_scale()) if scaler is not None else 1.0


@contextmanager
def _disable_dropout(model: torch.nn.Module) -> Iterator[None]:
    """Set evaluation mode, in which blocks with checkpointing still recompute, without dropout."""
    recomputing = [
        module
        for module in model.modules()
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing and module.training
    ]
    rates = [
        (module, name, rate)
        for module in recomputing
        for name, rate in vars(module).items()
        if "dropout" in name and isinstance(rate, float)
    ]
    with in_mode(model, training=False):
        for module in recomputing:
            module.training = True  # of this module alone: whether it recomputes depends on its own flag
        for module, name, _ in rates:
            setattr(module, name, 0.0)
        try:
            yield
        finally:
            for module, name, rate in rates:
                setattr(module, name, rate)
