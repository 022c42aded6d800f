"""Importance of each tensor for the loss, measured with the run's own optimiser (paper §3.2, Eq. 10)."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import get_args

import torch

from greencore.backprop.cost.trace import Batch
from greencore.backprop.master_weights import gradient_types
from greencore.backprop.optimizer_dry_run import OptimizerDryRun
from greencore.backprop.shards import get_shard, is_sharded, norm_over_shards, sum_over_shards
from greencore.settings.method_settings import Metric

LABELS = ("labels", "shift_labels")  # the arguments by which a model computes its loss
GradientAverager = Callable[[int, torch.Tensor], None]
NamedParameters = Mapping[str, torch.nn.Parameter]


class NotFinite(ValueError):
    """The probe's loss, or a tensor's gradient or importance, is not a finite number."""


@dataclass(frozen=True)
class BatchParts:
    """A batch in parts that are computed one after the other; its loss is the sum of theirs times `shares`."""

    parts: Sequence[Batch]
    shares: Sequence[float]


def importance(
    model: torch.nn.Module,
    batch: Batch | Sequence[Batch | BatchParts],
    optimizer: torch.optim.Optimizer,
    metric: Metric = "dw_grad",
    *,
    names: Collection[str] | None = None,
    max_grad_norm: float | None = None,
    loss_scale: float = 1.0,
    average: GradientAverager | None = None,
) -> dict[str, float]:
    """Measure the importance I_k of the named tensors, or of all that `optimizer` holds, by name: a mean over batches.

    `"dw_grad"` is paper Eq. 10, I_k = −Σ Δw · ∂L/∂w with the gradient at c = 0, not scaled: the predicted loss
    reduction of one step on tensor k alone, in units of the loss. `"dw"` (Σ|Δw|) and `"grad"` (Σ|∂L/∂w|) are the
    alternatives of Table 4. Δw comes from the optimiser's own step (`OptimizerDryRun`). All other tensors are frozen,
    so the backward pass ends at the deepest named one (Eq. 12).

    With `max_grad_norm`, Δw (and `"grad"`) come from gradients clipped by their norm over all named tensors, as
    `torch.nn.utils.clip_grad_norm_` does. That norm is known only after the last gradient: where it is too large, the
    batch's passes run again with the same random numbers. The loss is multiplied by `loss_scale` (fp16 autocast) and
    each gradient divided by it.

    `average(batch_index, gradient)` turns a gradient in place into the mean over all processes, as each arrives and
    again in a repeated pass. They arrive in the order of the autograd graph, so every process has to measure the same
    tensors of the same model on equally many batches. Only averaged gradients are then checked for non-finite values,
    so that all processes raise or none does.

    Each gradient is used and freed as it arrives: beyond the forward and backward pass it takes the memory of the
    largest tensor's weights, gradient and state, not of a second model. Of a batch in parts (`BatchParts`) the named
    tensors' gradients are all kept until its last part, as in a training step; in float32 where the optimiser steps
    `MasterWeights`. Those of sharded tensors (FSDP2), of which each process measures its part, are kept until the pass
    is over. Weights, buffers, optimiser state, gradients, `requires_grad` and the random state of the model's
    devices are bit-identical afterwards, errors included; the model runs in its current mode (train or eval), under the
    caller's autocast.

    Raises `NotFinite` for a loss, gradient or importance that is not finite, `ValueError` for names that the model or
    optimiser does not have, an optimiser that is not supported, a batch without labels, and a gradient that arrives in
    parts (reentrant checkpointing of a shared tensor).
    """
    _check_options(metric, max_grad_norm)
    given = [batch] if isinstance(batch, Mapping) else batch
    if not given:
        raise ValueError("there is no batch to measure importance on")
    batches = [one if isinstance(one, BatchParts) else BatchParts([one], [1.0]) for one in given]
    dry_run = OptimizerDryRun(optimizer)
    tensors = _resolve_parameters(model, dry_run, names)
    probe = _BatchProbe(model, tensors, dry_run, metric, max_grad_norm, loss_scale, average)
    totals = dict.fromkeys(tensors, 0.0)
    with _freeze_others(model, tensors), torch.random.fork_rng(devices=_list_cuda_devices(model)), torch.enable_grad():
        for index, one in enumerate(batches):
            for name, value in probe.measure_batch(index, one).items():
                totals[name] += value
    return {name: total / len(batches) for name, total in totals.items()}


def importance_of_gradients(
    tensors: NamedParameters,
    optimizer: torch.optim.Optimizer,
    metric: Metric = "dw_grad",
    *,
    max_grad_norm: float | None = None,
) -> dict[str, float]:
    """Measure the importance I_k of tensors, by name, from the gradients that they have: those of a training step.

    It is that of `importance` on the step's batch, without a pass over it. The gradients must be neither clipped nor
    scaled; Δw comes from gradients clipped by their norm over all tensors. Without a gradient a tensor's importance is
    0. Weights, optimiser state and gradients are bit-identical afterwards. Raises as `importance` does.
    """
    _check_options(metric, max_grad_norm)
    dry_run = OptimizerDryRun(optimizer)
    gradients = {name: tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}
    with torch.no_grad():
        norms = {name: torch.linalg.vector_norm(get_shard(gradient)) for name, gradient in gradients.items()}
        coefficient = _compute_clip_coefficient(norm_over_shards(norms, tensors), max_grad_norm)
        found = {}
        for name, gradient in gradients.items():
            try:
                found[name] = measure_tensor(dry_run, metric, tensors[name], gradient, coefficient)
            finally:
                tensors[name].grad = gradient
    values = dict.fromkeys(tensors, 0.0) | _to_floats(sum_over_shards(found, tensors))
    if metric == "grad":
        values = {name: value * coefficient for name, value in values.items()}
    _check_finite("importance", values)
    return values


@dataclass
class _BatchProbe:
    """Measures importance batch by batch."""

    model: torch.nn.Module
    tensors: NamedParameters
    dry_run: OptimizerDryRun
    metric: Metric
    max_grad_norm: float | None
    loss_scale: float
    average: GradientAverager | None

    def measure_batch(self, index: int, batch: BatchParts) -> dict[str, float]:
        """Measure I_k on one batch for every tensor whose gradient arrives; the loss does not depend on others."""
        gpus = _list_cuda_devices(self.model)
        random = torch.get_rng_state(), [torch.cuda.get_rng_state(gpu) for gpu in gpus]
        values, norms = self._run_pass(index, batch, 1.0)
        coefficient = _compute_clip_coefficient(norms, self.max_grad_norm, self.loss_scale)
        if coefficient < 1.0 and self.metric == "grad":
            values = {name: value * coefficient for name, value in values.items()}
        elif coefficient < 1.0:
            torch.set_rng_state(random[0])
            for gpu, state in zip(gpus, random[1], strict=True):
                torch.cuda.set_rng_state(state, gpu)
            values, _ = self._run_pass(index, batch, coefficient)
        _check_finite("importance", values)
        return values

    def _run_pass(
        self, index: int, batch: BatchParts, coefficient: float
    ) -> tuple[dict[str, float], Mapping[str, torch.Tensor]]:
        """Run the forward and backward passes of a batch: I_k under gradients times `coefficient`, and their norms."""
        names: dict[torch.Tensor, str] = {parameter: name for name, parameter in self.tensors.items()}
        found: dict[str, torch.Tensor] = {}
        norms: dict[str, torch.Tensor] = {}

        def arrive(parameter: torch.Tensor) -> None:
            name, gradient = names[parameter], parameter.grad
            assert gradient is not None
            parameter.grad = None
            if name in found:
                raise ValueError(f"the gradient of {name} arrives in parts: checkpoint with use_reentrant=False")
            with torch.no_grad():
                if self.loss_scale != 1.0:
                    gradient.mul_(1.0 / self.loss_scale)
                if self.average is not None:
                    self.average(index, gradient)
                if self.max_grad_norm is not None or self.loss_scale != 1.0:
                    norms[name] = torch.linalg.vector_norm(get_shard(gradient))
                found[name] = measure_tensor(self.dry_run, self.metric, parameter, gradient, coefficient)

        parts = len(batch.parts) if self.dry_run.has_masters else 1
        with (
            _restore_buffers(self.model),
            gradient_types(self.tensors.values(), parts=parts),
            _free_gradients(self.tensors),
        ):
            for part, share in zip(batch.parts[:-1], batch.shares[:-1], strict=True):
                self._add_gradients(part, share)
            # FSDP2 may add to a sharded gradient more than once in a pass
            with _hook_gradients([one for one in self.tensors.values() if not is_sharded(one)], arrive):
                self._add_gradients(batch.parts[-1], batch.shares[-1])
            for parameter in self.tensors.values():
                # sharded, or of an expert that routes no token of the last part
                if parameter.grad is not None:
                    arrive(parameter)
        return _to_floats(sum_over_shards(found, self.tensors)), norm_over_shards(norms, self.tensors)

    def _add_gradients(self, batch: Batch, share: float) -> None:
        """Add the gradients of a part of a batch, whose loss counts by `share`."""
        if share == 0.0:  # without a learned token its mean loss is not a number
            if self.average is None:
                return
            # other processes wait for this one's gradients, which are zero
            batch = fill_labels(batch, 0)
        loss = getattr(self.model(**batch), "loss", None)
        if loss is None:
            raise ValueError("the model returned no loss: the batch needs labels")
        if self.average is None and not torch.isfinite(loss):
            raise NotFinite(f"the probe's loss is {loss.item()}: importance cannot be measured")
        if loss.requires_grad:
            # the optimiser's own arithmetic must not be autocast
            with torch.autocast(loss.device.type, enabled=False):
                (loss * (self.loss_scale * share)).backward()


def fill_labels(batch: Batch, label: int) -> Batch:
    """Return a batch with one label everywhere: a token's, so that its mean loss is a number, or that of no token."""
    return {**batch, **{key: torch.full_like(batch[key], label) for key in LABELS if key in batch}}


def _check_options(metric: Metric, max_grad_norm: float | None) -> None:
    if metric not in get_args(Metric):
        raise ValueError(f"metric is one of {', '.join(get_args(Metric))}, got {metric!r}")
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ValueError(f"max_grad_norm is {max_grad_norm}: expected more than 0, or None for no clipping")


def measure_tensor(
    dry_run: OptimizerDryRun, metric: Metric, parameter: torch.Tensor, gradient: torch.Tensor, coefficient: float
) -> torch.Tensor:
    """Compute I_k of one tensor, left on its device: reading it would stall the backward pass on a GPU."""
    gradient = get_shard(gradient)
    if metric == "grad":
        return gradient.abs().sum(dtype=torch.promote_types(gradient.dtype, torch.float32))
    update = dry_run.compute_update(parameter, gradient, coefficient)
    if metric == "dw":
        return update.abs_().sum()
    return -update.mul_(gradient).sum()


def _compute_clip_coefficient(
    norms: Mapping[str, torch.Tensor], max_grad_norm: float | None, loss_scale: float = 1.0
) -> float:
    """Compute the factor of `clip_grad_norm_` for gradients of these norms: 1 where nothing is clipped."""
    if not norms:
        return 1.0
    scaled = f" at a loss scale of {loss_scale:g}" if loss_scale != 1.0 else ""
    _check_finite("gradient's norm", _to_floats(norms), scaled)
    if max_grad_norm is None:
        return 1.0
    first = next(iter(norms.values())).device
    total = torch.linalg.vector_norm(torch.stack([norm.to(first) for norm in norms.values()]))
    return min(1.0, float(max_grad_norm / (total + 1e-6)))


def _resolve_parameters(
    model: torch.nn.Module, dry_run: OptimizerDryRun, names: Collection[str] | None
) -> NamedParameters:
    """Look up the tensors to measure; a tied one appears once, under its first name."""
    optimized = {name: parameter for name, parameter in model.named_parameters() if parameter in dry_run}
    if not optimized:
        raise ValueError("the optimizer holds no parameter of this model")
    if names is None:
        return optimized
    unknown = sorted(set(names) - optimized.keys())
    if unknown:
        raise ValueError(f"the model and its optimizer hold no tensor named {', '.join(unknown)}")
    if not names:
        raise ValueError("there is no tensor to measure: names is empty")
    wanted = set(names)
    return {name: parameter for name, parameter in optimized.items() if name in wanted}


@contextmanager
def _freeze_others(model: torch.nn.Module, tensors: NamedParameters) -> Iterator[None]:
    """Make only the given tensors trainable within the context; afterwards restore all flags and gradients."""
    kept = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _, _ in kept:
            parameter.grad = None
            parameter.requires_grad_(False)
        for parameter in tensors.values():
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, requires_grad, gradient in kept:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient


@contextmanager
def _hook_gradients(tensors: Iterable[torch.Tensor], arrive: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Pass each tensor's gradient to `arrive` once it is complete."""
    hooks = [parameter.register_post_accumulate_grad_hook(arrive) for parameter in tensors]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _free_gradients(tensors: NamedParameters) -> Iterator[None]:
    """Free the tensors' gradients at the end of the context."""
    try:
        yield
    finally:
        for parameter in tensors.values():
            parameter.grad = None


@contextmanager
def _restore_buffers(model: torch.nn.Module) -> Iterator[None]:
    """Restore buffers bit by bit, with the attributes that describe them (dynamic rotary embeddings grow)."""
    kept = [
        (module, dict(vars(module)), {name: (buffer, buffer.clone()) for name, buffer in buffers.items()})
        for module in model.modules()
        if (buffers := dict(module.named_buffers(recurse=False)))
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, attributes, contents in kept:
                vars(module).update(attributes)
                for name, (buffer, content) in contents.items():
                    setattr(module, name, buffer.copy_(content))


def _list_cuda_devices(model: torch.nn.Module) -> list[int]:
    return sorted({parameter.device.index for parameter in model.parameters() if parameter.device.type == "cuda"})


def _to_floats(found: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Read all values in one transfer per device instead of one wait per tensor."""
    values: dict[str, float] = {}
    for device in {value.device for value in found.values()}:
        names = [name for name, value in found.items() if value.device == device]
        values.update(zip(names, torch.stack([found[name] for name in names]).tolist(), strict=True))
    return values


def _check_finite(what: str, values: Mapping[str, float], where: str = "") -> None:
    for name, value in values.items():
        if not isfinite(value):
            raise NotFinite(f"the {what} of {name} is {value}{where}")
