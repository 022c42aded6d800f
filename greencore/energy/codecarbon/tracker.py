"""CodeCarbon's tracker, configured to only measure, and only the job's own GPUs."""

import logging
import tempfile
from collections.abc import Sequence
from typing import Any

from greencore.energy.codecarbon.gpus import GpuEnergyReader, install_gpu_reader
from greencore.energy.devices import GpuId
from greencore.energy.methods import CAPACITY_ESTIMATE, NONE, RAPL, TDP_ESTIMATE

TASK = "training"
_CPU_MODES = {
    "intel_rapl": RAPL,
    "intel_power_gadget": "Intel Power Gadget",
    "windows_emi": "Windows EMI",
    "cpu_load": TDP_ESTIMATE,
    "constant": TDP_ESTIMATE,
}


class CodeCarbonTracker:
    """A running tracker: its readings of the processor, the selected GPUs and the memory, and their methods."""

    def __init__(self, tracker: Any, gpus: GpuEnergyReader) -> None:
        self._tracker, self.gpus = tracker, gpus

    def measure(self) -> None:
        """Measure now, in addition to the samples that CodeCarbon takes."""
        self._tracker._measure_power_and_energy()

    def totals_kwh(self) -> dict[str, float]:
        """Return the energy since the start of "cpu", "gpu" and "ram", in kWh, by the last measurement."""
        return {part: getattr(self._tracker, f"_total_{part}_energy").kWh for part in ("cpu", "gpu", "ram")}

    def stop(self) -> float:
        """Measure once more, end the task, and return its total energy in kWh."""
        ended = self._tracker.stop_task()
        if ended is None:
            raise RuntimeError("CodeCarbon has no running task and measured nothing")
        return float(ended.energy_consumed)

    def stop_sampling(self) -> None:
        """Stop the thread in which CodeCarbon samples power once a second."""
        # The thread may restart itself while it is stopped, and would then never end.
        self._tracker._scheduler_monitor_power.start = lambda **_: None
        self._tracker._scheduler_monitor_power.stop()

    @property
    def cpu_design_power_w(self) -> float:
        """The processor's design power, in W; 0 where unknown."""
        return float(next((part._tdp or 0.0 for part in self._processors()), 0.0))

    def skipped_rapl(self) -> bool:
        """Return whether a RAPL counter could not be read at the start or end of an interval."""
        files = [file for part in self._processors() for file in part._intel_interface._rapl_files]
        return not files or any(file.sample_skipped for file in files)

    def method(self, component: str) -> str:
        """Return the measurement method of "cpu", "gpu" or "ram": "RAPL", "TDP estimate", ..., or "none".

        For the GPUs see `GpuEnergyReader.method`.
        """
        for part in self._tracker._hardware:
            match type(part).__name__:
                case "CPU" if component == "cpu":
                    return _CPU_MODES.get(part._mode, str(part._mode))
                case "RAM" if component == "ram":
                    return CAPACITY_ESTIMATE
                case "AppleSiliconChip" if part.chip_part == component.upper():
                    return "powermetrics"
                case "Raspberry" if part.chip_part == component.upper():
                    return "PMIC"
        return self.gpus.method if component == "gpu" else NONE

    def _processors(self) -> list[Any]:
        return [part for part in self._tracker._hardware if type(part).__name__ == "CPU"]


def start_tracker(
    cpu_power_w: float | None, ram_power_w: float | None, gpu_ids: Sequence[GpuId] | None, *, samples: bool
) -> CodeCarbonTracker:
    """Start a CodeCarbon tracker that uses no network and writes no file.

    Without `samples` it measures only when asked. Raises `GpuNotFound` where `gpu_ids` names a GPU that does not
    exist, RuntimeError where CodeCarbon does not start to measure.
    """
    # Imported here because the import takes a second, which only a training process needs.
    from codecarbon import OfflineEmissionsTracker

    # The tracker applies its own level only after its first warnings.
    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    # CodeCarbon reads settings that are not given here from its configuration files and environment variables,
    # which may set a power usage effectiveness, an output or an online service.
    tracker: Any = OfflineEmissionsTracker(
        allow_multiple_runs=True,
        cloud_provider=None,
        cloud_region=None,
        country_iso_code=None,
        emissions_endpoint=None,
        force_carbon_intensity_g_co2e_kwh=0.0,
        force_cpu_power=cpu_power_w,
        force_mode_cpu_load=False,
        force_ram_power=ram_power_w,
        gpu_ids=None,
        log_level="error",
        output_dir=tempfile.gettempdir(),
        output_handlers=[],
        output_methods=[],
        pue=1.0,
        # Memory is metered separately: its share of the processor's counter would count twice.
        rapl_include_dram=False,
        rapl_prefer_psys=False,
        tracking_mode="machine",
        wue=0.0,
    )
    tracker.get_detected_hardware()
    if cpu_power_w is not None:
        _set_constant_cpu_power(tracker, cpu_power_w)
    opened = CodeCarbonTracker(tracker, install_gpu_reader(tracker._hardware, gpu_ids))
    if not samples:
        opened.stop_sampling()
    tracker.start_task(TASK)
    if tracker._active_task != TASK:
        raise RuntimeError("CodeCarbon did not start to measure: see its log")
    return opened


def _set_constant_cpu_power(tracker: Any, cpu_power_w: float) -> None:
    from codecarbon.external.hardware import CONSUMPTION_PERCENTAGE_CONSTANT, CPU

    # CodeCarbon takes a forced power as the power at full load, and counts a tenth of it for an idle processor.
    # In its constant mode it counts a fixed share of the nominal power at any load.
    processors: list[Any] = [part for part in tracker._hardware if isinstance(part, CPU)]
    for processor in processors:
        processor._mode = "constant"
        processor._tdp = cpu_power_w / CONSUMPTION_PERCENTAGE_CONSTANT
