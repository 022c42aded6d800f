"""GPUs: whether torch can compute on them, and whether their energy can be read."""

from collections.abc import Iterator

from cli.doctor.check import CheckResult


def run_checks() -> Iterator[CheckResult]:
    """What torch sees, and what NVIDIA's management library sees."""
    yield _torch()
    yield _nvml()


def _torch() -> CheckResult:
    try:
        import torch
    except ImportError:
        return CheckResult("gpu", "skipped", "torch is not installed: nothing is trained on this machine")
    if not torch.cuda.is_available():
        return CheckResult(
            "gpu",
            "warning",
            f"torch {torch.__version__} sees none: training runs on the CPU",
            "on a machine with an NVIDIA GPU, install its driver and a torch that was built for CUDA",
        )
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return CheckResult("gpu", "ok", f"{', '.join(names)} (torch {torch.__version__}, CUDA {torch.version.cuda})")


def _nvml() -> CheckResult:
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
