"""How the energy of each part of a machine was found, in the words that are stored and shown."""

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
    """The method of energy that was estimated because its meter stopped answering."""
    return f"{meter} does not answer: estimate by {basis}"


def is_unresponsive(method: str) -> bool:
    """Whether energy was found by an estimate because its meter stopped answering."""
    return "does not answer" in method


def is_estimate(method: str) -> bool:
    """Whether energy found by this method was reckoned, wholly or in part, rather than read from a meter.

    True of configured power, of anything that calls itself an estimate, of a GPU that is only assumed to be the job's
    and of one that could not be read for a part of the time.
    """
    return any(word in method for word in _NOT_MEASURED)


def cpu_method(hardware: list[Any]) -> str:
    """How CodeCarbon's `hardware` measures the processor: "RAPL", "TDP estimate", ..., or "none"."""
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
    """How CodeCarbon's `hardware` measures the GPUs at this time, after each interval's measurement.

    "NVML energy counter" adds up energy in the device; "NVML sampled power" averages one reading of the power a
    second, on devices that have no such counter or while it cannot be read; "NVML does not answer: ..." is one that
    gives neither, and is among `unresponsive_gpus` (by its index, what its estimate is made by). Several are separated
    by commas; `notes` follow in brackets.
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
    """How CodeCarbon's `hardware` finds the memory's energy: "capacity estimate", "PMIC" or "none"."""
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
