"""Optimiser state of tensors that are not trained for a while."""

from collections.abc import Iterable
from typing import Any, Literal

import torch

OptimizerStatePolicy = Literal["release", "host", "keep"]


def apply_optimizer_state_policy(
    optimizer: Any, parameters: Iterable[torch.nn.Parameter], policy: OptimizerStatePolicy
) -> None:
    """Apply the policy to the state of frozen `parameters`, and move that of trainable ones to their device.

    With "host" the entries stay in the optimiser, so that checkpoints hold them, but in host memory; step counters stay
    on the device that the optimiser chose.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps the real one
    for parameter in parameters:
        if parameter not in optimizer.state:
            continue
        if policy == "release" and not parameter.requires_grad:
            del optimizer.state[parameter]
        elif policy == "host":
            where = parameter.device if parameter.requires_grad else torch.device("cpu")
            entries = optimizer.state[parameter]
            for key, value in entries.items():
                if isinstance(value, torch.Tensor) and value.dim() > 0:
                    entries[key] = value.to(where)
