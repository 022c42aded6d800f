"""How much each tensor matters for the loss, measured with the run's own optimiser (paper §3.2, Eq. 10)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any, Literal, get_args

import torch

from greencore.backprop.trace import Batch

Metric = Literal["dw_grad", "dw", "grad"]


class NotFinite(ValueError):
    """The probe's loss, or a tensor's importance, is not a finite number."""


def importance(
    model: torch.nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    metric: Metric = "dw_grad",
    *,
    max_grad_norm: float | None = None,
) -> dict[str, float]:
    """Importance I_k of every tensor that `optimizer` holds, by parameter name, from one batch.

    `"dw_grad"` is paper Eq. 10, I_k = −Σ Δw · ∂L/∂w with the gradient at c = 0, not scaled: the loss reduction that
    one step on tensor k alone predicts, in units of the loss. `"dw"` (Σ|Δw|) and `"grad"` (Σ|∂L/∂w|) are the
    alternatives of Table 4. Δw comes from the optimiser's own step with its state, learning rate and weight decay; a
    learning rate of zero, as at a warm-up's first step, is replaced by the group's initial one, since it would hide
    every difference. With `max_grad_norm` a tensor's gradient is clipped by its own norm, as in a run that trains it
    alone.

    The gradients are used and freed tensor by tensor as they arrive, so beyond the backward pass it takes the memory
    of one tensor's copy and state. Weights, optimiser state, gradients, `requires_grad` and random state are
    bit-identical afterwards; the model runs in the mode (train or eval) it is in. Raises `NotFinite` for a loss or an
    importance that is not finite, `ValueError` for an optimiser that holds nothing of the model or a batch without
    labels.
    """
    if metric not in get_args(Metric):
        raise ValueError(f"metric is one of {', '.join(get_args(Metric))}, got {metric!r}")
    optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps the real one
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    names = {id(parameter): name for name, parameter in model.named_parameters() if id(parameter) in held}
    if not names:
        raise ValueError("the optimizer holds no parameter of this model")
    tensors = [parameter for parameter in model.parameters() if id(parameter) in names]
    found: dict[str, torch.Tensor] = {}

    def measure(parameter: torch.Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None
        found[names[id(parameter)]] = _importance(parameter, gradient, optimizer, metric, max_grad_norm)
        parameter.grad = None

    with _probing(tensors, measure):
        output = model(**batch)
        loss = getattr(output, "loss", None)
        if loss is None:
            raise ValueError("the model returned no loss: the batch needs labels")
        if not torch.isfinite(loss):
            raise NotFinite(f"the probe's loss is {loss.item()}: nothing can be said about any tensor")
        loss.backward()
    values = {name: float(value) for name, value in found.items()}
    for name, value in values.items():
        if not isfinite(value):
            raise NotFinite(f"the importance of {name} is {value}")
    return {name: values.get(name, 0.0) for name in names.values()}


def _importance(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    metric: Metric,
    max_grad_norm: float | None,
) -> torch.Tensor:
    """I_k of one tensor, left on its device: reading it here would stall the backward pass on a GPU."""
    if metric == "grad":
        return gradient.detach().abs().sum(dtype=torch.float32)
    kept = gradient.detach()
    if max_grad_norm is not None:
        norm = torch.linalg.vector_norm(kept.float())
        parameter.grad = kept * torch.clamp(max_grad_norm / (norm + 1e-6), max=1.0).to(kept.dtype)
    elif getattr(optimizer, "_step_supports_amp_scaling", False):
        parameter.grad = kept.clone()  # fused kernels may unscale the gradient in place
    with _one_step_undone(parameter, optimizer) as step:
        update = step()
        if metric == "dw":
            return update.abs().sum(dtype=torch.float32)
        return -(update.float() * kept.float()).sum()


@contextmanager
def _one_step_undone(parameter: torch.Tensor, optimizer: torch.optim.Optimizer) -> Iterator[Callable[[], torch.Tensor]]:
    """Offer one real optimiser step on one tensor alone, and undo it: weights and state come back bit by bit."""
    group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    rate = group["lr"] if _positive(group["lr"]) else group.get("initial_lr", group["lr"])
    groups, weights = optimizer.param_groups, parameter.detach().clone()
    had_state = parameter in optimizer.state
    state = {key: _copy(value) for key, value in optimizer.state[parameter].items()} if had_state else {}

    def step() -> torch.Tensor:
        with torch.no_grad():
            type(optimizer).step(optimizer)
            return parameter.detach() - weights

    optimizer.param_groups = [{**group, "params": [parameter], "lr": rate}]
    try:
        yield step
    finally:
        optimizer.param_groups = groups
        with torch.no_grad():
            parameter.copy_(weights)
        if had_state:
            for key, value in state.items():
                optimizer.state[parameter][key] = value
        else:
            optimizer.state.pop(parameter, None)


@contextmanager
def _probing(tensors: list[torch.nn.Parameter], measure: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Every tensor trainable, its gradient handed to `measure`; afterwards gradients, flags and randomness are back."""
    kept = [(tensor, tensor.requires_grad, tensor.grad) for tensor in tensors]
    hooks = []
    devices = sorted({tensor.device.index for tensor in tensors if tensor.device.type == "cuda"})
    try:
        for tensor in tensors:
            tensor.grad = None
            tensor.requires_grad_(True)
            hooks.append(tensor.register_post_accumulate_grad_hook(measure))
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for tensor, requires_grad, grad in kept:
            tensor.requires_grad_(requires_grad)
            tensor.grad = grad


def _positive(rate: Any) -> bool:
    return float(rate) > 0.0


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
