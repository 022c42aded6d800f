"""Which device to train on, and whether bfloat16 autocast pays there."""

import time
from functools import cache

import torch


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def bf16_pays(kind: str) -> bool:
    """Whether bfloat16 autocast is faster than fp32 on this device.

    On a GPU what the driver reports; on a CPU a matrix product is timed both ways, since processors without bfloat16
    arithmetic emulate it, at less than half the speed.
    """
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return _seconds(torch.bfloat16) * 1.2 < _seconds(torch.float32)


def bf16_autocast(where: torch.device, *, enabled: bool) -> torch.autocast:
    """The autocast to bfloat16 that the Trainer's own steps run under, or fp32 throughout."""
    return torch.autocast(where.type, dtype=torch.bfloat16, enabled=enabled)


def _seconds(dtype: torch.dtype) -> float:
    """The best of a few products of the size of a small model's layer."""
    left, right = torch.ones(256, 576, dtype=dtype), torch.ones(576, 1536, dtype=dtype)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - started)
    return min(times)
