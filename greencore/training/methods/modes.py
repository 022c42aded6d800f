"""Context manager for the mode, training or evaluation, of a model's modules; shared by training and evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager

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
