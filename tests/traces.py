"""Traces of equal models, taken once a process: to trace a step takes most of a tiny model's run."""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from greencore.backprop import Profile, profile
from greencore.device import PeakMemory
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.batch_shapes import BatchShapes
from greencore.training.methods.step_memory import predict_step_memory

_traced: dict[Hashable, Any] = {}


@contextmanager
def remember_traces() -> Iterator[None]:
    """Trace a step, and predict its memory, only where no equal one of an equal model has been in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("greencore.training.methods.step_costs.profile", _profile_once)
        patch.setattr("greencore.training.run_memory.predict_step_memory", _predict_once)
        yield


def _profile_once(
    model: torch.nn.Module, batch: Mapping[str, torch.Tensor], *, names: Collection[str] | None = None
) -> Profile:
    shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in batch.items())
    key = ("profile", describe_model(model), shapes, None if names is None else frozenset(names))
    found: Profile = _trace_once(key, lambda: profile(model, batch, names=names))
    return found


def _predict_once(
    model: torch.nn.Module, shapes: BatchShapes, hyperparameters: Hyperparameters, **given: Any
) -> PeakMemory:
    settings = tuple((name, value if isinstance(value, str | int) else tuple(value)) for name, value in given.items())
    key = ("memory", describe_model(model), repr(shapes), hyperparameters.model_dump_json(), settings)
    found: PeakMemory = _trace_once(key, lambda: predict_step_memory(model, shapes, hyperparameters, **given))
    return found


def _trace_once(key: Hashable, trace: Callable[[], Any]) -> Any:
    if key not in _traced:
        _traced[key] = trace()
    return _traced[key]


def describe_model(model: torch.nn.Module) -> Hashable:
    """Return all that a trace depends on, but for the batch: modules with their code and modes, tensors, settings."""
    modules = tuple(
        (
            name,
            type(module),
            type(module).forward,
            module.training,
            getattr(module.__dict__.get("forward"), "__qualname__", None),  # as accelerate wraps it
            getattr(module, "gradient_checkpointing", None),
            module.extra_repr(),
            len(module._forward_pre_hooks),
            len(module._forward_hooks),
        )
        for name, module in model.named_modules()
    )
    tensors = tuple(
        (name, tensor.shape, tensor.dtype, tensor.device, tensor.requires_grad)
        for name, tensor in (*model.named_parameters(remove_duplicate=False), *model.named_buffers())
    )
    tied = len(list(model.parameters()))
    config: Any = getattr(model, "config", None)
    settings = None if config is None else {**config.to_dict(), "_name_or_path": None}
    return modules, tensors, tied, repr(settings), getattr(config, "_attn_implementation", None)
