"""Checks of GPUs and meters: whether torch finds a GPU, and whether energy is read or estimated."""

import os
from collections.abc import Iterator
from pathlib import Path

from cli.doctor.check import CheckResult

POWERCAP = Path("/sys/class/powercap")


def run_checks() -> Iterator[CheckResult]:
    """Check what torch and NVIDIA's management library find, and the processor's energy counters."""
    yield _check_torch()
    yield _check_nvml()
    yield check_rapl()


def check_rapl(powercap: Path = POWERCAP) -> CheckResult:
    """Check the energy counters of every processor package; a virtual machine has none as a rule."""
    counters = sorted(powercap.glob("*rapl*/energy_uj"))
    closed = [counter for counter in counters if not os.access(counter, os.R_OK)]
    if not counters:
        found = f"no counter in {powercap}: the processor's energy is estimated"
        mend = "set GREENTUNE_CPU_POWER_W to the processor's measured power, where it is known"
    elif closed:
        found = f"{closed[0]} cannot be read by this user: the processor's energy is estimated"
        command = f"sudo chmod -R a+r {closed[0].parent.resolve()} (again after each start of the machine)"
        mend = f"{command}, or run the worker as a user who may read it"
    else:
        return CheckResult("rapl", "ok", f"{len(counters)} counters of the processor can be read")
    return CheckResult("rapl", "warning", found, mend)


def _check_torch() -> CheckResult:
    try:
        import torch
    except ImportError:
        return CheckResult("gpu", "skipped", "torch is not installed: nothing is trained on this machine")
    if not torch.cuda.is_available():
        found = f"torch {torch.__version__} sees none: training runs on the CPU"
        mend = "on a machine with an NVIDIA GPU, install its driver and a torch that was built for CUDA"
        return CheckResult("gpu", "warning", found, mend)
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return CheckResult("gpu", "ok", f"{', '.join(names)} (torch {torch.__version__}, CUDA {torch.version.cuda})")


def _check_nvml() -> CheckResult:
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return CheckResult("nvml", "skipped", "nvidia-ml-py is not installed: no GPU's energy is read on this machine")
    except pynvml.NVMLError as error:
        return CheckResult("nvml", "skipped", f"no energy of an NVIDIA GPU can be read here ({error})")
    try:
        count = pynvml.nvmlDeviceGetCount()
        silent = [index for index in range(count) if not _counts_energy(index)]
    finally:
        pynvml.nvmlShutdown()
    if silent:
        found = f"GPU {', '.join(map(str, silent))} has no energy counter: its power is sampled instead"
        return CheckResult("nvml", "warning", found, "nothing to mend: the model of the GPU has none")
    return CheckResult("nvml", "ok", f"the energy counters of {count} GPUs can be read")


def _counts_energy(index: int) -> bool:
    import pynvml

    try:
        pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(index))
    except pynvml.NVMLError:
        return False
    return True
