"""Peak memory of a run's steps by method, batch layout, precision and recomputation, predicted before it runs."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch.nn import functional

from greencore.backprop.cost.peak_memory import predict_peak_memory
from greencore.backprop.master_weights import MasterWeights
from greencore.device import PeakMemory, RunPrecision
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.method_settings import AdaptiveSettings
from greencore.training.batches.batch_shapes import BatchShapes, is_encoder_decoder
from greencore.training.batches.learned_positions import get_targets
from greencore.training.methods.modes import in_mode
from greencore.training.methods.step_costs import StepCosts, make_batch
from greencore.training.models.sharding import count_gathered
from greencore.training.recipe import build_optimizer_settings


def predict_step_memory(
    model: Any,
    shapes: BatchShapes,
    hyperparameters: Hyperparameters,
    *,
    names: Collection[str],
    probed: Collection[str] = (),
    precision: RunPrecision = "fp32",
    processes: int = 1,
) -> PeakMemory:
    """Predict the peak memory of a step on the longest micro-batch, with the hyperparameters' optimiser.

    `names` are trained, and the importance of `probed` is measured before an epoch or in its first step, as the
    hyperparameters say. Of several `processes` it is that of one. Includes the logits, their loss and its gradients as
    the Trainer of a run computes them. Raises `TraceError`.
    """
    adaptive = hyperparameters.adaptive or AdaptiveSettings()
    in_step = adaptive.probe_batches is None
    kind, options = build_optimizer_settings(hyperparameters, model)
    if kind is torch.optim.AdamW:
        options = {**options, "fused": True}
    batch = make_batch(shapes.rows, shapes.longest, torch.device("meta"), terms=shapes.terms)
    encoder = is_encoder_decoder(model)

    def build_optimizer(tensors: list[torch.Tensor]) -> torch.optim.Optimizer:
        optimizer = kind(tensors, **options)
        return MasterWeights(optimizer) if precision == "bf16" else optimizer

    def compute_loss(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        outputs = model(**inputs, use_cache=False)
        targets = get_targets(inputs, encoder=encoder)
        for scores, expected in zip(outputs.logits.detach(), targets, strict=True):
            # as `sum_token_loss`, where every token is learned
            functional.cross_entropy(scores.clone().float(), expected, reduction="sum")
        loss: torch.Tensor = outputs.loss
        return loss

    with in_mode(model, training=True):
        return predict_peak_memory(
            model,
            batch,
            names=names,
            optimizer=build_optimizer,
            compute_loss=compute_loss,
            probed=() if in_step else probed,
            measured=probed if in_step else (),
            metric=adaptive.metric,
            micro_batches=-(-hyperparameters.batch_size // (processes * hyperparameters.rows_at_once)),
            autocast=precision == "mixed",
            dtype=torch.bfloat16 if precision == "bf16" else None,
            processes=processes,
            gathered=count_gathered(model),
        )


def list_largest_selection(costs: StepCosts, rho: float) -> tuple[str, ...]:
    """List the tensors within ρ that take the most memory: the best selection if importance were size."""
    if rho >= 1:
        return costs.tensors
    return costs.select({tensor.name: float(tensor.params) for tensor in costs.tensor_costs}, rho).names
