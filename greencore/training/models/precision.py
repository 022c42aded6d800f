"""Which device to train on, and in which precision."""

import torch

# Of `torch.cpu.get_capabilities()`: x86's AVX-512 and AMX, and ARM's. Other processors emulate bfloat16, at less than
# half the speed of fp32.
CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")


def choose_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def supports_bf16(where: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself, so that autocast to it saves time.

    Asked of the hardware and never timed: on a loaded machine a measurement would give one job other weights.
    """
    if where.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in CPU_BF16)


def bf16_autocast(where: torch.device, *, enabled: bool) -> torch.autocast:
    """The autocast to bfloat16 that the Trainer's own steps run under, or fp32 throughout."""
    return torch.autocast(where.type, dtype=torch.bfloat16, enabled=enabled)
