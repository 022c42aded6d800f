"""Peak memory of a run's steps by method, batch layout and recomputation, predicted before it runs."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch.nn import functional
from transformers import Trainer, TrainingArguments

from greencore.backprop.cost.peak_memory import PeakMemory, predict_peak_memory
from greencore.training.methods.batch_shapes import BatchShapes, is_encoder_decoder
from greencore.training.methods.modes import in_mode
from greencore.training.methods.step_costs import StepCosts, make_batch


def predict_step_memory(
    model: Any,
    shapes: BatchShapes,
    arguments: TrainingArguments,
    *,
    names: Collection[str],
    probed: Collection[str] = (),
    micro_batches: int = 1,
) -> PeakMemory:
    """Predict the peak memory of a step on the longest batch, with the optimiser and precision of the arguments.

    `names` are trained and `probed` measured before an epoch. Includes the logits, their loss and its gradients as the Trainer of a run computes them. Raises `TraceError`.
    """
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    encoder = is_encoder_decoder(model)
    batch = make_batch(shapes.rows, shapes.longest, torch.device("meta"), encoder=encoder)

    def compute_loss(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        outputs = model(**inputs, num_items_in_batch=1, use_cache=False)
        for scores in outputs.logits.detach():  # as `sum_token_loss`, where every token is learned
            functional.cross_entropy(scores.clone().float(), inputs["labels"][0], reduction="sum")
        loss: torch.Tensor = outputs.loss
        return loss

    with in_mode(model, training=True):
        return predict_peak_memory(
            model,
            batch,
            names=names,
            optimizer=lambda tensors: kind(tensors, **options),
            compute_loss=compute_loss,
            probed=probed,
            micro_batches=micro_batches,
            autocast=torch.bfloat16 if arguments.bf16 else None,
        )


def list_largest_selection(costs: StepCosts, rho: float) -> tuple[str, ...]:
    """List the tensors within ρ that take the most memory: the best selection if importance were size."""
    if rho >= 1:
        return costs.tensors
    return costs.select({tensor.name: float(tensor.params) for tensor in costs.tensor_costs}, rho).names
