"""How the energy of each part of a machine was found, in the words that are stored and shown."""

from typing import Any

CONFIGURED = "configured power"
NONE = "none"
RAPL = "RAPL"
TDP_ESTIMATE = "TDP estimate"
CAPACITY_ESTIMATE = "capacity estimate"
ENERGY_COUNTER = "energy counter"
SAMPLED_POWER = "sampled power"
UNREADABLE = "unreadable"

_NOT_MEASURED = ("estimate", "assumed", UNREADABLE, CONFIGURED)

_CPU_MODES = {
    "intel_rapl": RAPL,
    "intel_power_gadget": "Intel Power Gadget",
    "windows_emi": "Windows EMI",
    "cpu_load": TDP_ESTIMATE,
    "constant": TDP_ESTIMATE,
}

_GPU_LIBRARIES = {"NvidiaGPUDevice": "NVML", "AMDGPUDevice": "AMD SMI"}


def is_estimate(method: str) -> bool:
    """Whether energy found by this method was reckoned, wholly or in part, rather than read from a meter.

    True of configured power, of anything that calls itself an estimate, of a GPU that is only assumed to be the job's
    and of one that could not be read (whose energy is missing).
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


def gpu_method(hardware: list[Any], notes: tuple[str, ...] = ()) -> str:
    """How CodeCarbon's `hardware` measures the GPUs at this time, after each interval's measurement.

    "NVML energy counter" adds up energy in the device; "NVML sampled power" averages one reading of the power a
    second, on devices that have no such counter or while it cannot be read; "NVML unreadable" is a device that gives
    neither, whose energy is missing. Several are separated by commas; `notes` follow in brackets.
    """
    for part in hardware:
        match type(part).__name__:
            case "GPU":
                names = sorted({_device_method(device) for device in part.devices.devices})
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


def _device_method(device: Any) -> str:
    library = _GPU_LIBRARIES.get(type(device).__name__, "unknown")
    if not device._use_power_fallback:
        return f"{library} {ENERGY_COUNTER}"
    return f"{library} {UNREADABLE if device._warned_power_failure else SAMPLED_POWER}"
