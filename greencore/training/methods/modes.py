"""The mode, training or evaluation, of each part of a model."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def preserve_modes(model: torch.nn.Module) -> Iterator[None]:
    """Whatever becomes of the modes meanwhile, every part is in its own again afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def in_evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout; every part is in its own mode again afterwards."""
    with preserve_modes(model):
        model.eval()
        yield
