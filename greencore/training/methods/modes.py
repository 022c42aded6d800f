"""Context managers for the mode, training or evaluation, of a model's modules; shared by training and evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def preserve_modes(model: torch.nn.Module) -> Iterator[None]:
    """Restore the mode of every module on exit."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def in_evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Run without dropout, in evaluation mode; restore the mode of every module on exit."""
    with preserve_modes(model):
        model.eval()
        yield
