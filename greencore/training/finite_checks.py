"""Ends a run whose loss or gradient is not finite, with the step at which that was first so."""

import math
from collections.abc import Mapping

import torch

from greencore.backprop import NotFinite
from greencore.training.models.loading import ModelError
from greencore.training.models.weights import find_non_finite_tensor


def check_model(model: torch.nn.Module) -> None:
    """Raises `ModelError` where the weights of a model that has yet to be trained are not finite."""
    if (name := find_non_finite_tensor(model)) is not None:
        raise ModelError(f"{name} holds values that are not finite, before anything has been trained")


def check_step(step: int, *, loss: float, gradient_norm: float) -> None:
    """Raises `NotFinite` with the number of a step (from 1), before its gradients reach the weights."""
    for what, value in (("loss", loss), ("gradient norm", gradient_norm)):
        if not math.isfinite(value):
            raise NotFinite(f"the {what} of step {step} is {value}: {explain_non_finite(step)}")


def check_gradients(step: int, gradients: Mapping[str, torch.Tensor], *, clipped: bool) -> None:
    """Raises `NotFinite` where a gradient of a step is not finite.

    Gradients that were clipped by their norm are multiplied by one number, which is not finite either: then one
    tensor tells it of all.
    """
    if clipped and gradients:
        name = min(gradients, key=lambda name: gradients[name].numel())
        gradients = {name: gradients[name]}
    for name, gradient in gradients.items():
        if not bool(torch.isfinite(gradient).all()):
            raise NotFinite(f"the gradient of {name} is not finite in step {step}: {explain_non_finite(step)}")


def check_held_out_loss(loss: float, when: str) -> None:
    """Raises `NotFinite` where the model has no finite loss on the held-out rows."""
    if not math.isfinite(loss):
        raise NotFinite(f"the held-out loss {when} is {loss}: training has diverged; a lower learning rate may help")


def explain_non_finite(step: int) -> str:
    """What may have made a step (from 1) come to numbers that are not finite."""
    if step == 1:
        return "nothing had been trained, so the cause is not the learning rate but the model or the rows of that step"
    return "training has diverged; a lower learning rate may help, or a look at the rows of that step"
