"""Adaptive backpropagation for any `transformers.Trainer`: probe, select and report, epoch by epoch."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from greencore.backprop import importance
from greencore.backprop.importance import Metric
from greencore.training.rows import to_device
from greencore.training.step_costs import StepCosts

Schedule = float | Callable[[int], float]


@dataclass(frozen=True)
class EpochReport:
    """One epoch: the share ρ of FLOPs that was asked for, what was trained, and what it came to.

    `share` is `flops / full_flops` over the epoch's own batches and at most `rho`; the probe's FLOPs and seconds
    stand beside it. `importance` is raw (in units of the loss) and empty where everything is trained anyway.
    """

    epoch: int
    rho: float
    tensors: tuple[str, ...]
    tensors_total: int
    importance: Mapping[str, float]
    flops: int
    full_flops: int
    probe_flops: int
    probe_seconds: float

    @property
    def share(self) -> float:
        return self.flops / self.full_flops if self.full_flops else 0.0


class GreenTrainerCallback(TrainerCallback):
    """Trains, in each epoch, the most important tensors that a share ρ of full fine-tuning's FLOPs pays for.

    `rho` is in (0, 1], or a function from the epoch's number (from 0) to such a value. At each epoch's start the
    importance of every tensor that the optimiser holds is probed on one batch of the training rows (paper §3.2), the
    best set within ρ is selected (§3.3), the others are frozen, and their optimiser state is freed: a tensor that
    comes back starts with fresh moments. Every single step stays within ρ, whatever its length, in all FLOPs and in
    the matrix products alone. `on_epoch` is called with the `EpochReport` at each epoch's end; `epochs` keeps them.
    At the end of training every tensor is trainable again. Raises `greencore.backprop.BudgetTooSmall` at the start
    of an epoch whose ρ is below the floor.
    """

    def __init__(
        self,
        rho: Schedule,
        *,
        metric: Metric = "dw_grad",
        on_epoch: Callable[[EpochReport], None] | None = None,
    ) -> None:
        self._rho = rho
        self._metric = metric
        self._on_epoch = on_epoch
        self._costs: StepCosts | None = None
        self._parameters: dict[str, torch.nn.Parameter] = {}
        self._hook: Any = None
        self._watching = False
        self._shapes: Counter[tuple[int, int]] = Counter()
        self._current: _Plan | None = None
        self.epochs: list[EpochReport] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        self._parameters = {name: p for name, p in model.named_parameters() if id(p) in held}
        if not self._parameters:
            raise ValueError("the model has no trainable tensor: the optimiser holds none")
        shortest, longest = _lengths(kwargs["train_dataloader"])
        self._costs = StepCosts(
            model,
            batch_size=args.per_device_train_batch_size,
            shortest=shortest,
            longest=longest,
            names=self._parameters,
        )
        self._hook = model.register_forward_pre_hook(self._count, with_kwargs=True)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        epoch = round(state.epoch or 0)
        rho = self._rho(epoch) if callable(self._rho) else self._rho
        if not 0 < rho <= 1:
            raise ValueError(f"ρ of epoch {epoch} is {rho}: expected more than 0 and at most 1")
        self._current = self._plan(epoch, rho, args, kwargs)
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])
        chosen = set(self._current.tensors)
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name in chosen)
            if name not in chosen:
                parameter.grad = None
                optimizer.state.pop(parameter, None)
        self._shapes.clear()
        self._watching = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._watching = False
        assert self._current is not None
        assert self._costs is not None
        plan = self._current
        flops, full = self._costs.flops(plan.tensors, self._shapes)
        report = EpochReport(
            epoch=plan.epoch,
            rho=plan.rho,
            tensors=plan.tensors,
            tensors_total=len(self._costs.tensors),
            importance=plan.importance,
            flops=flops,
            full_flops=full,
            probe_flops=plan.probe_flops,
            probe_seconds=plan.probe_seconds,
        )
        self.epochs.append(report)
        if self._on_epoch:
            self._on_epoch(report)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._hook.remove()
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)

    def _plan(self, epoch: int, rho: float, args: TrainingArguments, kwargs: Mapping[str, Any]) -> "_Plan":
        costs = self._costs
        assert costs is not None
        if rho >= 1:
            return _Plan(epoch, rho, costs.tensors, {}, 0, 0.0)
        started = time.perf_counter()
        batch = to_device(_probe_batch(kwargs["train_dataloader"], args, epoch), args.device)
        with _evaluation_mode(kwargs["model"]):
            measured = importance(
                kwargs["model"],
                batch,
                kwargs["optimizer"],
                self._metric,
                max_grad_norm=args.max_grad_norm or None,
            )
        chosen = costs.select(measured, rho)
        _, probe_flops = costs.flops((), {_shape(batch): 1})
        return _Plan(epoch, rho, chosen.names, measured, probe_flops, time.perf_counter() - started)

    def _count(self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._watching and model.training and torch.is_grad_enabled():
            self._shapes[_shape(kwargs)] += 1


@dataclass(frozen=True)
class _Plan:
    """What was decided at an epoch's start."""

    epoch: int
    rho: float
    tensors: tuple[str, ...]
    importance: Mapping[str, float]
    probe_flops: int
    probe_seconds: float


def _shape(batch: Mapping[str, Any]) -> tuple[int, int]:
    rows, length = batch["input_ids"].shape[:2]
    return int(rows), int(length)


def _lengths(dataloader: Any) -> tuple[int, int]:
    """The shortest and the longest that a batch can be, padding included; of a stream, its first batch's length."""
    dataset = dataloader.dataset
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        by_length = sorted(range(len(dataset)), key=lambda index: len(dataset[index]["input_ids"]))
        ends = [dataloader.collate_fn([dataset[index]]) for index in (by_length[0], by_length[-1])]
    else:
        ends = [next(iter(dataloader))] * 2
    shortest, longest = (_shape(batch)[1] for batch in ends)
    return shortest, longest


def _probe_batch(dataloader: Any, args: TrainingArguments, epoch: int) -> Mapping[str, Any]:
    """Rows drawn for this epoch by a generator of their own, so that the run's random state is not touched."""
    dataset = dataloader.dataset
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        batch: Mapping[str, Any] = next(iter(dataloader))
        return batch
    generator = torch.Generator().manual_seed(args.seed * 1_000_003 + epoch)
    rows = torch.randperm(len(dataset), generator=generator)[: args.per_device_train_batch_size]
    probe: Mapping[str, Any] = dataloader.collate_fn([dataset[index] for index in rows.tolist()])
    return probe


@contextmanager
def _evaluation_mode(model: torch.nn.Module) -> Any:
    """Probe without dropout, whose noise would enter every tensor's importance."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
