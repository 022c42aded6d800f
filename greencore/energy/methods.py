"""Names of the measurement methods of a machine's components, as stored and displayed."""

from collections.abc import Mapping
from typing import Any

CONFIGURED = "configured power"
NONE = "none"
RAPL = "RAPL"
TDP_ESTIMATE = "TDP estimate"
CAPACITY_ESTIMATE = "capacity estimate"
ENERGY_COUNTER = "energy counter"
SAMPLED_POWER = "sampled power"
UNREADABLE = "unreadable"
LAST_POWER = "its last known power"
DESIGN_POWER = "its design power"

_NOT_MEASURED = ("estimate", "assumed", UNREADABLE, CONFIGURED)

_CPU_MODES = {
    "intel_rapl": RAPL,
    "intel_power_gadget": "Intel Power Gadget",
    "windows_emi": "Windows EMI",
    "cpu_load": TDP_ESTIMATE,
    "constant": TDP_ESTIMATE,
}

NO_GPUS: Mapping[int, str] = {}

_GPU_LIBRARIES = {"NvidiaGPUDevice": "NVML", "AMDGPUDevice": "AMD SMI"}


def unresponsive_method(meter: str, basis: str) -> str:
    """Return the method name of an estimate made because a meter does not answer."""
    return f"{meter} does not answer: estimate by {basis}"


def is_unresponsive(method: str) -> bool:
    """Return whether a method is an estimate made because a meter does not answer."""
    return "does not answer" in method


def is_estimate(method: str) -> bool:
    """Return whether energy by this method was estimated, wholly or in part, rather than measured.

    True for configured power, for every estimate, for a GPU that is assumed to be the job's, and for one that could
    not be read for a part of the time.
    """
    return any(word in method for word in _NOT_MEASURED)


def cpu_method(hardware: list[Any]) -> str:
    """Return how CodeCarbon's `hardware` measures the processor: "RAPL", "TDP estimate", ..., or "none"."""
    for part in hardware:
        match type(part).__name__:
            case "CPU":
                return _CPU_MODES.get(part._mode, str(part._mode))
            case "AppleSiliconChip" if part.chip_part == "CPU":
                return "powermetrics"
            case "Raspberry" if part.chip_part == "CPU":
                return "PMIC"
    return NONE


def gpu_method(hardware: list[Any], notes: tuple[str, ...] = (), unresponsive_gpus: Mapping[int, str] = NO_GPUS) -> str:
    """Return how CodeCarbon's `hardware` measured the GPUs in the last interval.

    "NVML energy counter" is the device's own counter; "NVML sampled power" is the mean of one power reading a second,
    on devices without a counter or while it cannot be read; "NVML does not answer: ..." is an estimate for a device
    in `unresponsive_gpus` (its index, and the basis of its estimate). Several methods are separated by commas; `notes`
    follow in brackets.
    """
    for part in hardware:
        match type(part).__name__:
            case "GPU":
                names = sorted({_device_method(device, unresponsive_gpus) for device in part.devices.devices})
                if not names:
                    return NONE
                return ", ".join(names) + (f" ({', '.join(notes)})" if notes else "")
            case "AppleSiliconChip" if part.chip_part == "GPU":
                return "powermetrics"
    return NONE


def ram_method(hardware: list[Any]) -> str:
    """Return how CodeCarbon's `hardware` measures the memory: "capacity estimate", "PMIC" or "none"."""
    for part in hardware:
        match type(part).__name__:
            case "RAM":
                return CAPACITY_ESTIMATE
            case "Raspberry" if part.chip_part == "RAM":
                return "PMIC"
    return NONE


def _device_method(device: Any, unresponsive_gpus: Mapping[int, str]) -> str:
    library = _GPU_LIBRARIES.get(type(device).__name__, "unknown")
    if device.gpu_index in unresponsive_gpus:
        return unresponsive_method(library, unresponsive_gpus[device.gpu_index])
    if not device._use_power_fallback:
        return f"{library} {ENERGY_COUNTER}"
    return f"{library} {UNREADABLE if device._warned_power_failure else SAMPLED_POWER}"
