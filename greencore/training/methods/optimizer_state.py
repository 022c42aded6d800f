"""What becomes of the optimiser state of tensors that are not trained for a while."""

from collections.abc import Iterable
from typing import Any, Literal

import torch

OptimizerStatePolicy = Literal["release", "host", "keep"]


def apply_optimizer_state_policy(
    optimizer: Any, parameters: Iterable[torch.nn.Parameter], treatment: OptimizerStatePolicy
) -> None:
    """Treat the state of the frozen ones among `parameters`, and bring back that of the trainable ones.

    With "host" the entries stay in the optimiser, so that checkpoints hold them, but in host memory; step counters,
    which optimisers keep where they want them, are left alone.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps the real one
    for parameter in parameters:
        if parameter not in optimizer.state:
            continue
        if treatment == "release" and not parameter.requires_grad:
            del optimizer.state[parameter]
        elif treatment == "host":
            where = parameter.device if parameter.requires_grad else torch.device("cpu")
            entries = optimizer.state[parameter]
            for key, value in entries.items():
                if isinstance(value, torch.Tensor) and value.dim() > 0:
                    entries[key] = value.to(where)
