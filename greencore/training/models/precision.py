"""Device and precision of a run, chosen from the hardware; used by training, evaluation and benchmarks."""

from pathlib import Path
from typing import cast, get_args

import torch

from greencore.device import RunPrecision, resolve_precision
from greencore.settings.value_types import PrecisionName
from greencore.training.processes import recall

PRECISION_FILE_NAME = "precision.json"

# Names in `torch.cpu.get_capabilities()`: x86 AVX-512 and AMX, and ARM. Other processors emulate bfloat16, at less
# than half the speed of fp32.
CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")


def choose_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def supports_bf16(where: torch.device) -> bool:
    """Return whether a device computes natively in bfloat16, so that autocast saves time.

    Read from the hardware, not timed: a measurement on a loaded machine could give a job different weights.
    """
    if where.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in CPU_BF16)


def recall_precision(wanted: PrecisionName, file: Path) -> RunPrecision:
    """Return the precision of a run: at its first start by what is wanted and this device, then as stored in `file`.

    A run that goes on upon another device keeps it, since its checkpoints have weights of one type.
    """
    return recall(file, lambda: resolve_precision(wanted, bf16=supports_bf16(choose_device())), _parse)


def _parse(stored: object) -> RunPrecision:
    if stored not in get_args(RunPrecision):
        raise TypeError(f"{stored!r} is not a precision")
    return cast(RunPrecision, stored)


def bf16_autocast(where: torch.device, *, enabled: bool) -> torch.autocast:
    """Return the bfloat16 autocast of the Trainer's steps, or fp32 where not `enabled`."""
    return torch.autocast(where.type, dtype=torch.bfloat16, enabled=enabled)
