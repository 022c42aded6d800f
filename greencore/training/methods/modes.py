"""Context managers for the mode and the cache of a model, which training and evaluation share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def in_mode(model: torch.nn.Module, *, training: bool) -> Iterator[None]:
    """Put the model in training or evaluation mode; restore the mode of every module on exit."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.train(training)
        yield
    finally:
        for module, before in modes.items():
            module.training = before


@contextmanager
def use_cache_as(config: Any, value: bool | None) -> Iterator[None]:
    """Set a model configuration's `use_cache` in the block, without which generation computes each prefix again.

    None removes it: a composite configuration has no such field.
    """
    before = getattr(config, "use_cache", None)
    set_use_cache(config, value)
    try:
        yield
    finally:
        set_use_cache(config, before)


def set_use_cache(config: Any, value: bool | None) -> None:
    """Set a model configuration's `use_cache`, or remove it for None."""
    if value is None:
        vars(config).pop("use_cache", None)
    else:
        config.use_cache = value
