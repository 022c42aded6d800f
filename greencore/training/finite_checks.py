"""Checks that end a run at the first step whose loss, gradient or weights are not finite."""

import math
from collections.abc import Mapping

import torch

from greencore.backprop import NotFinite
from greencore.backprop.shards import find_invalid
from greencore.training.models.loading import ModelError
from greencore.training.models.weights import find_non_finite_tensor


def check_model(model: torch.nn.Module) -> None:
    """Raise `ModelError` where a model's weights are not finite before training."""
    if (name := find_non_finite_tensor(model)) is not None:
        raise ModelError(f"{name} holds non-finite values before training")


def check_step(step: int, *, loss: float, gradient_norm: float) -> None:
    """Raise `NotFinite` where a step's (from 1) loss or gradient norm is not finite, before the optimiser step."""
    for what, value in (("loss", loss), ("gradient norm", gradient_norm)):
        if not math.isfinite(value):
            raise NotFinite(f"the {what} of step {step} is {value}: {explain_non_finite(step)}")


def check_gradients(step: int, gradients: Mapping[str, torch.Tensor], *, clipped: bool) -> None:
    """Raise `NotFinite` where a gradient of a step is not finite.

    Clipping by norm multiplies all gradients by one factor, which is then not finite either, so that checking one
    tensor is enough. Of sharded gradients every process raises, or none does.
    """
    if clipped and gradients:
        name = min(gradients, key=lambda name: gradients[name].numel())
        gradients = {name: gradients[name]}
    if (found := find_invalid(gradients, torch.isfinite)) is not None:
        raise NotFinite(f"the gradient of {found} is not finite in step {step}: {explain_non_finite(step)}")


def check_held_out_loss(loss: float, when: str) -> None:
    """Raise `NotFinite` where the loss on the held-out rows is not finite."""
    if not math.isfinite(loss):
        raise NotFinite(f"the held-out loss {when} is {loss}: training has diverged; try a lower learning rate")


def explain_non_finite(step: int) -> str:
    """Return the likely cause of non-finite numbers in a step (from 1), for an error message."""
    if step == 1:
        return "no step had been trained, so the cause is not the learning rate but the model or the rows of that step"
    return "training has diverged; try a lower learning rate, or check the rows of that step"
