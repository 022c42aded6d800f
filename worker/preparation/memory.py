"""Peak memory of a job's steps, what a job that does not fit could change, and where blocks have to recompute."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog
from transformers import PreTrainedModel

from greencore.backprop import BudgetTooSmall, TraceError
from greencore.backprop.cost.by_length import Lengths
from greencore.device import Device
from greencore.hyperparameters import Hyperparameters
from greencore.method_settings import AdaptiveSettings
from greencore.training.data.batch_layout import BatchLayout
from greencore.training.data.positions import PositionLimits
from greencore.training.data.tokenisation import round_up_length
from greencore.training.methods.baselines import BaselineError, list_trained_tensors
from greencore.training.methods.step_costs import StepCosts
from greencore.training.methods.step_memory import list_largest_selection, predict_step_memory
from greencore.training.methods.tensor_patterns import match_tensor_patterns
from greencore.training.micro_batch_choice import list_sizes
from greencore.training.models.loading import enable_gradient_checkpointing, load_meta_model
from planning.peak_memory import GIGABYTE, TracedStep

log = structlog.get_logger()


class DeviceTooSmall(ValueError):
    """A job's steps need more memory than the device of any live worker has; the message says what would fit."""


UNKNOWN_DEVICE = Device("unknown", 0)


@dataclass(frozen=True)
class JobMemory:
    """Predicts the peak memory of a job's steps under changed settings. `rho` is the policy's highest."""

    folder: Path
    method: str
    rho: float
    lengths: Sequence[Lengths]
    limits: PositionLimits
    layout: BatchLayout

    def predict(
        self, hyperparameters: Hyperparameters, device: Device | None, method: str | None = None
    ) -> TracedStep | None:
        """Return the memory of an optimiser step on the longest rows; None where it cannot be predicted."""
        method = method or self.method
        model = load_meta_model(self.folder, attention=hyperparameters.attention)
        if hyperparameters.gradient_checkpointing is True:
            enable_gradient_checkpointing(model)
        rows = min(hyperparameters.rows_at_once, len(self.lengths))
        layout = BatchLayout(rows, hyperparameters.batch_size, packing=self.layout.packing)
        shapes = layout.measure_extremes(self.lengths, self.limits)
        probed: tuple[str, ...] = ()
        try:
            if method == "greentrainer":
                adaptive = hyperparameters.adaptive or AdaptiveSettings()
                roles = match_tensor_patterns(
                    model, never_train=adaptive.never_train, always_train=adaptive.always_train
                )
                names: Sequence[str] = [name for name, _ in model.named_parameters() if name not in roles.never]
                if self.rho < 1:
                    costs = StepCosts(model, shapes, always=roles.always, never=roles.never)
                    names = list_largest_selection(costs, self.rho)
                    probed = costs.list_affordable_tensors(self.rho)
            else:
                model, names = _prepare_method(model, method, hyperparameters)
            precision = (device or UNKNOWN_DEVICE).choose_precision(hyperparameters)
            memory = predict_step_memory(
                model, shapes, hyperparameters, names=names, probed=probed, precision=precision
            )
            return TracedStep(
                **asdict(memory),
                precision=precision,
                rows=rows,
                tokens=round_up_length(max(sum(row) for row in self.lengths)),
                several=hyperparameters.batch_size > hyperparameters.rows_at_once,
            )
        except (TraceError, BudgetTooSmall, BaselineError) as error:
            log.warning("memory.not_predicted", reason=str(error))
            return None

    def list_fitting_changes(self, hyperparameters: Hyperparameters, device: Device) -> Iterator[str]:
        """Yield the single changes of the settings with which the job would fit onto the device."""

        def fits(changed: Hyperparameters, method: str | None = None) -> bool:
            traced = self.predict(changed, device, method)
            return traced is not None and traced.peak <= device.memory_bytes

        recomputed = hyperparameters.model_copy(update={"gradient_checkpointing": True})
        if self.method != "prefix" and hyperparameters.gradient_checkpointing is not True and fits(recomputed):
            yield "gradient_checkpointing true"
        for rows in list_sizes(min(hyperparameters.rows_at_once, len(self.lengths)))[1:]:
            if fits(hyperparameters.model_copy(update={"micro_batch_size": rows})):
                yield f"micro_batch_size {rows}"
                break
        if self.method not in ("lora", "prefix") and fits(hyperparameters, "lora"):
            yield "the method lora"


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted peak of a job's steps in bytes and the traced step behind it, None where unknown.

    `recomputes`: its blocks recompute their activations.
    """

    peak_bytes: int | None
    traced: TracedStep | None
    recomputes: bool


def fit_memory(memory: JobMemory, hyperparameters: Hyperparameters, device: Device | None) -> MemoryEstimate:
    """Predict a job's peak memory, and let its blocks recompute under `auto` where that alone makes it fit.

    Without a device nothing is refused. Raises `DeviceTooSmall` with the figure and what would make it fit.
    """
    recomputes = hyperparameters.gradient_checkpointing is True
    traced = memory.predict(hyperparameters, device)
    if traced is None or device is None or traced.peak <= device.memory_bytes:
        return MemoryEstimate(None if traced is None else traced.peak, traced, recomputes)
    peak = traced.peak
    if hyperparameters.micro_batch_size == "auto":  # a run measures how many rows fit
        hyperparameters = hyperparameters.model_copy(update={"micro_batch_size": 1})
        least = memory.predict(hyperparameters, device)
        if least is not None and least.peak <= device.memory_bytes:
            return MemoryEstimate(device.memory_bytes, traced, recomputes)
    if hyperparameters.gradient_checkpointing == "auto" and memory.method != "prefix":
        recomputed = memory.predict(hyperparameters.model_copy(update={"gradient_checkpointing": True}), device)
        if recomputed is not None and recomputed.peak <= device.memory_bytes:
            return MemoryEstimate(recomputed.peak, recomputed, recomputes=True)
    changes = list(memory.list_fitting_changes(hyperparameters, device))
    advice = f"it would fit with {' or '.join(changes)}" if changes else "a smaller max_length or model takes less"
    raise DeviceTooSmall(
        f"a step needs {peak / GIGABYTE:.3g} of {device.memory_bytes / GIGABYTE:.3g} GB on the largest device of a live"
        f" worker ({device.name}): {advice}"
    )


def _prepare_method(model: PreTrainedModel, method: str, hyperparameters: Hyperparameters) -> tuple[Any, Sequence[str]]:
    """Return the model with the method's adapter, and the names of what it trains."""
    if method in ("lora", "prefix"):
        from greencore.training.methods.adapters import with_adapter

        adapted: Any = with_adapter(method, model, lora=hyperparameters.lora)  # type: ignore[arg-type]
        return adapted, [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    if method == "full":
        return model, [name for name, _ in model.named_parameters()]
    return model, list_trained_tensors(method, model, epoch=0, epochs=1)  # type: ignore[arg-type]
