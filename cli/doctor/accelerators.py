"""GPUs: whether torch can compute on them, and whether their energy can be read."""

from collections.abc import Iterator

from cli.doctor.check import Check


def checks() -> Iterator[Check]:
    """What torch sees, and what NVIDIA's management library sees."""
    yield _torch()
    yield _nvml()


def _torch() -> Check:
    try:
        import torch
    except ImportError:
        return Check("gpu", "skipped", "torch is not installed: nothing is trained on this machine")
    if not torch.cuda.is_available():
        return Check(
            "gpu",
            "warning",
            f"torch {torch.__version__} sees none: training runs on the CPU",
            "on a machine with an NVIDIA GPU, install its driver and a torch that was built for CUDA",
        )
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Check("gpu", "ok", f"{', '.join(names)} (torch {torch.__version__}, CUDA {torch.version.cuda})")


def _nvml() -> Check:
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return Check("nvml", "skipped", "nvidia-ml-py is not installed: no GPU's energy is read on this machine")
    except pynvml.NVMLError as error:
        return Check("nvml", "skipped", f"no energy of an NVIDIA GPU can be read here ({error})")
    try:
        count = pynvml.nvmlDeviceGetCount()
        silent = [index for index in range(count) if not _counts_energy(index)]
    finally:
        pynvml.nvmlShutdown()
    if silent:
        found = f"GPU {', '.join(map(str, silent))} has no energy counter: its power is sampled instead"
        return Check("nvml", "warning", found, "nothing to mend: the model of the GPU has none")
    return Check("nvml", "ok", f"the energy counters of {count} GPUs can be read")


def _counts_energy(index: int) -> bool:
    import pynvml

    try:
        pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(index))
    except pynvml.NVMLError:
        return False
    return True
