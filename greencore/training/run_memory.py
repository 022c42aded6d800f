"""Peak memory of a run's steps under its settings, and whether its blocks recompute under `auto`."""

import logging
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from greencore.backprop import BudgetTooSmall, TraceError
from greencore.backprop.cost.by_length import Lengths
from greencore.device import PeakMemory, RunPrecision
from greencore.host_memory import read_host_memory
from greencore.model_names import TensorRoles
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.method_settings import AdaptiveSettings
from greencore.training.batches.batch_layout import BatchLayout
from greencore.training.batches.batch_shapes import BatchShapes
from greencore.training.batches.positions import PositionLimits
from greencore.training.data.tokenisation import round_up_length
from greencore.training.methods.baselines import BaselineError, add_adapter, list_trained_tensors
from greencore.training.methods.step_costs import StepCosts
from greencore.training.methods.step_memory import list_largest_selection, predict_step_memory
from greencore.training.methods.tensor_patterns import match_tensor_patterns
from greencore.training.models.loading import enable_gradient_checkpointing, load_meta_model
from greencore.training.processes import agree, recall

log = logging.getLogger(__name__)

FILE_NAME = "recomputation.json"  # of the choice, in the run's folder
# Bytes of activations, in float32, of a token for each unit of a matrix's two widths: many times what blocks keep.
BOUND_BYTES_PER_WIDTH = 64


@dataclass(frozen=True)
class RunMemory:
    """Predicts the peak memory of a run's steps under changed settings, each once. `rho` is any epoch's highest.

    Of a run in several `processes` it is that of each.
    """

    folder: Path
    method: str
    rho: float
    lengths: Sequence[Lengths]
    limits: PositionLimits
    layout: BatchLayout
    processes: int = 1
    # What `trace_costs` has traced, also for another number of processes.
    _costs: dict[Hashable, StepCosts] = field(default_factory=dict, repr=False, compare=False)
    _predicted: dict[tuple[str, RunPrecision, str], PeakMemory | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def longest_row(self) -> int:
        """Padded tokens of the longest row, of prompt and completion together."""
        return round_up_length(max(sum(self.layout.get_token_lengths(row)) for row in self.lengths))

    @property
    def most_learned(self) -> int:
        """Padded positions of the row that has most logits; 0 where they are computed at all."""
        return round_up_length(max(row[1] for row in self.lengths)) if self.layout.learned_only else 0

    def count_rows(self, hyperparameters: Hyperparameters) -> int:
        """Count the rows of a micro-batch, of a process's part of a step."""
        part = -(-hyperparameters.batch_size // self.processes)
        return min(hyperparameters.rows_at_once, part, len(self.lengths))

    def trace_costs(
        self, model: PreTrainedModel, shapes: BatchShapes, roles: TensorRoles, *, recomputes: bool
    ) -> StepCosts:
        """Return the FLOPs of steps of these shapes, traced once. `model` is the run's; its blocks recompute or not.

        Raises as `StepCosts`.
        """
        key = (repr(shapes), model.config._attn_implementation, roles, recomputes)
        if key not in self._costs:
            self._costs[key] = StepCosts(model, shapes, always=roles.always, never=roles.never)
        return self._costs[key]

    def predict(
        self, hyperparameters: Hyperparameters, precision: RunPrecision, method: str | None = None
    ) -> PeakMemory | None:
        """Return the memory of an optimiser step on the longest rows; None where it cannot be predicted.

        Recomputation and micro-batch under `auto` are taken as without recomputation, and of all rows of a step.
        """
        resolved = hyperparameters.model_copy(
            update={
                "gradient_checkpointing": hyperparameters.gradient_checkpointing is True,
                "micro_batch_size": hyperparameters.rows_at_once,
            }
        )
        key = (resolved.model_dump_json(), precision, method or self.method)
        if key not in self._predicted:
            self._predicted[key] = self._trace(resolved, precision, method or self.method)
        return self._predicted[key]

    def list_levels(self, hyperparameters: Hyperparameters) -> Iterator[Hyperparameters]:
        """Yield the settings that `auto` may come to, each with less memory: one row at once, recomputed blocks.

        Of a micro-batch under `auto` a run measures how many rows fit.
        """
        if hyperparameters.micro_batch_size == "auto":
            hyperparameters = hyperparameters.model_copy(update={"micro_batch_size": 1})
        kept = hyperparameters.gradient_checkpointing is True
        yield hyperparameters.model_copy(update={"gradient_checkpointing": kept})
        if hyperparameters.gradient_checkpointing == "auto" and self.method != "prefix":
            yield hyperparameters.model_copy(update={"gradient_checkpointing": True})

    def bound(self, model: torch.nn.Module, hyperparameters: Hyperparameters) -> int:
        """Return bytes that no step exceeds, by the widths of the model's matrices and without a traced step."""
        parameters = list(model.parameters())
        widths = sum(p.shape[0] + p.shape[-1] for p in parameters if p.ndim > 1)
        tokens = self.count_rows(hyperparameters) * self.longest_row
        states = 8 * sum(p.numel() * 4 for p in parameters)  # weights, gradients, state and a probe's copies
        return states + BOUND_BYTES_PER_WIDTH * tokens * (widths + self.longest_row * len(parameters))

    def _trace(self, hyperparameters: Hyperparameters, precision: RunPrecision, method: str) -> PeakMemory | None:
        model = load_meta_model(self.folder, attention=hyperparameters.attention)
        if hyperparameters.gradient_checkpointing is True:
            enable_gradient_checkpointing(model)
        rows = self.count_rows(hyperparameters)
        layout = replace(self.layout, rows=rows, step_rows=hyperparameters.batch_size)
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
                    recomputes = hyperparameters.gradient_checkpointing is True
                    costs = self.trace_costs(model, shapes, roles, recomputes=recomputes)
                    names = list_largest_selection(costs, self.rho)
                    probed = costs.list_affordable_tensors(self.rho)
            else:
                model, names = _prepare_method(model, method, hyperparameters)
            return predict_step_memory(
                model,
                shapes,
                hyperparameters,
                names=names,
                probed=probed,
                precision=precision,
                processes=self.processes,
            )
        except (TraceError, BudgetTooSmall, BaselineError) as error:
            log.warning("the memory of a step is not predicted: %s", error)
            return None


def load_or_choose_recomputation(
    folder: Path, memory: RunMemory, model: torch.nn.Module, hyperparameters: Hyperparameters, precision: RunPrecision
) -> bool:
    """Return whether the blocks of a run under `auto` recompute: where a step would not fit into the memory otherwise.

    The memory is that of the model's device. A step is traced where a bound without a trace does not fit; that choice
    is stored in the run's folder, and is made again on another device, or one of the same name with other memory.
    """
    file = folder / FILE_NAME
    device = next(model.parameters()).device
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else device.type
    available = torch.cuda.get_device_properties(device).total_memory if cuda else read_host_memory()
    name, available = agree((name, available))

    def parse(stored: Any) -> bool:
        if (stored["device"], stored["device_bytes"]) != (name, available):
            chosen = f"{stored['device']} of {stored['device_bytes']} bytes"
            raise ValueError(f"chosen on {chosen}, and the device is {name} of {available} bytes")
        return bool(stored["recomputes"])

    def choose() -> dict[str, Any]:
        kept, *recomputed = memory.list_levels(hyperparameters)
        traced = memory.predict(kept, precision)
        peak = None if traced is None else traced.peak
        recomputes = bool(recomputed) and peak is not None and peak > available
        return {"device": name, "recomputes": recomputes, "peak_bytes": peak, "device_bytes": available}

    if not file.is_file() and memory.bound(model, hyperparameters) <= available:
        return False
    return recall(file, choose, parse)


def _prepare_method(model: PreTrainedModel, method: str, hyperparameters: Hyperparameters) -> tuple[Any, Sequence[str]]:
    """Return the model with the method's adapter, and the names of what it trains."""
    if method in ("lora", "prefix"):
        adapted = add_adapter(method, model, hyperparameters.lora)
        return adapted, [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    if method == "full":
        return model, [name for name, _ in model.named_parameters()]
    return model, list_trained_tensors(method, model, epoch=0, epochs=1)  # type: ignore[arg-type]
