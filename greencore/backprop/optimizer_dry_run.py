"""Dry run of the run's own optimiser: one step on one tensor alone, computed and undone (paper §3.2, Eq. 11)."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch

from greencore.backprop.master_weights import HALF_PRECISION, MASTER, MasterWeights
from greencore.backprop.shards import get_shard, is_sharded

_GRADIENT_PRESERVING_OPTIMIZERS = (
    torch.optim.Adadelta,
    torch.optim.Adafactor,
    torch.optim.Adagrad,
    torch.optim.Adam,
    torch.optim.Adamax,
    torch.optim.AdamW,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.SGD,
)  # their steps never write to the gradient


class OptimizerDryRun:
    """Computes what the optimiser's next step would change of a single tensor, and restores everything.

    The step is the optimiser's own, with the tensor's state and its group's options (learning rate as set by the
    schedule, weight decay). A learning rate of zero, as at a warm-up's first step, is replaced by the group's initial
    one, since it would make every update zero. Raises `ValueError` for an optimiser whose step needs a closure.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps the real one
        self._step = _unwrap_step(self._optimizer)
        self._copies = _CopyBuffers()
        self._options: dict[torch.Tensor, dict[str, Any]] = {}
        for group in self._optimizer.param_groups:
            options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
            options["lr"] = _get_learning_rate(group)
            self._options.update(dict.fromkeys(group["params"], options))

    @property
    def has_masters(self) -> bool:
        """Whether half-precision weights are stepped by float32 copies, and may have float32 gradients."""
        return isinstance(self._optimizer, MasterWeights)

    def __contains__(self, parameter: torch.Tensor) -> bool:
        return parameter in self._options

    def compute_update(self, parameter: torch.Tensor, gradient: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """Compute Δw = w_{t+1} − w_t under `gradient` times `scale`, in float32 or the weights' wider type.

        Of weights with a float32 master copy (`MasterWeights`) it is the copy's, before rounding.
        It has the shape of `parameter`, or of this process's part of a sharded one, and is valid until the next call.
        Weights, state and `gradient` are never written to: the step works on copies, so it takes the memory of the
        largest tensor's weights, gradient and state. `parameter.grad` is None afterwards. Raises `ValueError` where the
        optimiser cannot step one tensor at a time, or not a part of a sharded one (Adafactor).
        """
        optimizer, copies = self._optimizer, self._copies
        weights, gradient = get_shard(parameter.detach()), get_shard(gradient)
        if is_sharded(parameter) and not _steps_by_element(optimizer):
            raise ValueError(_explain_unsupported(optimizer, "its step on a part of a sharded tensor is another"))
        groups, state = optimizer.param_groups, optimizer.state.get(parameter)
        options = {key: copies.copy(value, "options", key) for key, value in self._options[parameter].items()}
        tried_state = {
            # the state of a deselected tensor may be in host memory; step counters stay there
            key: copies.copy(value, "state", key, device=weights.device if getattr(value, "ndim", 0) else None)
            for key, value in (state or {}).items()
        }
        tried = copies.copy(weights, "weights")
        as_it_is = scale == 1.0 and _preserves_gradient(optimizer, gradient)
        if isinstance(optimizer, MasterWeights) and weights.dtype != gradient.dtype:
            tried.grad_dtype = gradient.dtype
        tried.grad = gradient if as_it_is else copies.copy(gradient, "gradient").mul_(scale)
        try:  # from here on only the step allocates: running out of memory above has changed nothing
            optimizer.param_groups = [{**options, "params": [tried]}]
            if state is not None:
                optimizer.state[tried] = tried_state
            with torch.no_grad():
                self._step(optimizer)
            wide = torch.promote_types(weights.dtype, torch.float32)
            if isinstance(optimizer, MasterWeights) and weights.dtype != wide:
                before = weights if state is None else get_shard(state.get(MASTER, weights))
                master: torch.Tensor = optimizer.state[tried][MASTER]
                return master.sub_(before)
            update: torch.Tensor = tried.to(wide).sub_(weights)
            return update
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ValueError(
                _explain_unsupported(optimizer, f"its step on one tensor alone failed: {error}")
            ) from error
        finally:
            parameter.grad = None
            tried.grad = None
            optimizer.param_groups = groups
            optimizer.state.pop(tried, None)


class _CopyBuffers:
    """Memory for copies that is used again: fresh pages from the system cost a CPU more than the copying."""

    def __init__(self) -> None:
        self._memory: dict[tuple[Any, ...], torch.Tensor] = {}

    def copy(self, value: Any, *role: Any, device: torch.device | None = None) -> Any:
        """Copy `value`, to `device` if given; a copied tensor is valid until the next copy in its role."""
        if not isinstance(value, torch.Tensor):
            return copy.deepcopy(value)
        value = get_shard(value)
        device = device or value.device
        if not value.is_contiguous():
            return value.to(device, copy=True)
        place = (*role, value.dtype, device)
        memory = self._memory.pop(place, None)
        if memory is None or memory.numel() < value.numel():
            memory = None  # free before more is taken
            memory = torch.empty(value.numel(), dtype=value.dtype, device=device)
        self._memory[place] = memory
        return memory[: value.numel()].view(value.shape).copy_(value)


def _unwrap_step(optimizer: torch.optim.Optimizer) -> Callable[[torch.optim.Optimizer], Any]:
    """Return the class's own step: schedulers wrap the instance's to count, and torch's runs the user's hooks."""
    step = type(optimizer).step
    if getattr(step, "hooked", False):
        step = inspect.unwrap(step, stop=lambda function: not getattr(function, "hooked", False))
    closure = inspect.signature(step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(_explain_unsupported(optimizer, "its step evaluates the model again"))
    return step


def _preserves_gradient(optimizer: torch.optim.Optimizer, gradient: torch.Tensor) -> bool:
    """Return whether the optimiser's step leaves the gradient that it is given as it is."""
    if not isinstance(optimizer, MasterWeights):
        return type(optimizer) in _GRADIENT_PRESERVING_OPTIMIZERS
    return gradient.dtype in HALF_PRECISION or _preserves_gradient(optimizer.inner, gradient)


def _steps_by_element(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the step of each weight depends on no other weight of its tensor."""
    inner = optimizer.inner if isinstance(optimizer, MasterWeights) else optimizer
    return type(inner) in _GRADIENT_PRESERVING_OPTIMIZERS and not isinstance(inner, torch.optim.Adafactor)


def _get_learning_rate(group: dict[str, Any]) -> Any:
    """Return the group's learning rate; None where the optimiser computes its own (transformers' Adafactor)."""
    rate = group.get("lr")
    return rate if rate is None or float(rate) > 0.0 else group.get("initial_lr", rate)


def _explain_unsupported(optimizer: torch.optim.Optimizer, reason: str) -> str:
    names = ", ".join(kind.__name__ for kind in _GRADIENT_PRESERVING_OPTIMIZERS)
    return (
        f"optimiser {type(optimizer).__name__} is not supported: {reason}. Supported are those that step each tensor "
        f"by itself: torch's {names}, transformers' Adafactor"
    )
