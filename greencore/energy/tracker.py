"""CodeCarbon's tracker, set so that it only measures, and only what the job itself uses."""

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from greencore.energy.devices import Gpu, GpuId, GpuSelection, select_gpus, select_visible_gpus
from greencore.energy.gpu_guard import GpuEnergyReader


@dataclass(frozen=True)
class TrackerHandle:
    """A tracker, the GPUs that it bills with their UUIDs, and what estimates those that do not answer."""

    tracker: Any
    gpus: GpuSelection
    gpu_uuids: tuple[str, ...]
    gpu_reader: GpuEnergyReader


def open_tracker(
    cpu_power_w: float | None, ram_power_w: float | None, gpu_ids: Sequence[GpuId] | None
) -> TrackerHandle:
    """Open a CodeCarbon tracker that asks no network, writes no file, and is ready to start a task.

    Raises `GpuNotFound` where `gpu_ids` names a GPU that is not there.
    """
    # Imported here because it takes a second, which only a training process should pay.
    from codecarbon import OfflineEmissionsTracker

    # The level given to the tracker counts only after its first warnings.
    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    # Whatever is not given here, CodeCarbon takes from its configuration files and environment variables,
    # where a power usage effectiveness, an output or an online service may be set.
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
        # Memory is metered apart: its share of the processor's counter would be billed twice.
        rapl_include_dram=False,
        rapl_prefer_psys=False,
        tracking_mode="machine",
        wue=0.0,
    )
    tracker.get_detected_hardware()
    if cpu_power_w is not None:
        _set_constant_cpu_power(tracker, cpu_power_w)
    gpus = _restrict_gpus(tracker, gpu_ids)
    devices = _gpu_devices(tracker)
    return TrackerHandle(tracker, gpus, tuple(str(device._uuid) for device in devices), _install_gpu_reader(tracker))


def _gpu_devices(tracker: Any) -> list[Any]:
    from codecarbon.external.hardware import GPU

    return [device for part in tracker._hardware if isinstance(part, GPU) for device in part.devices.devices]


def _install_gpu_reader(tracker: Any) -> GpuEnergyReader:
    from codecarbon.external.hardware import GPU

    gpu_reader = GpuEnergyReader(_gpu_devices(tracker))
    for part in tracker._hardware:
        if isinstance(part, GPU):
            devices: Any = part.devices
            devices.get_delta = gpu_reader.get_delta
    return gpu_reader


def _set_constant_cpu_power(tracker: Any, cpu_power_w: float) -> None:
    from codecarbon.external.hardware import CONSUMPTION_PERCENTAGE_CONSTANT, CPU

    # CodeCarbon takes a forced power for the one at full load, and bills a tenth of it while the processor idles.
    # In its constant mode it bills a fixed share of the nominal power, whatever the load.
    processors: list[Any] = [part for part in tracker._hardware if isinstance(part, CPU)]
    for processor in processors:
        processor._mode = "constant"
        processor._tdp = cpu_power_w / CONSUMPTION_PERCENTAGE_CONSTANT


def _restrict_gpus(tracker: Any, gpu_ids: Sequence[GpuId] | None) -> GpuSelection:
    """Takes every GPU out of the tracker but the given ones, or else those that this process can see."""
    from codecarbon.core.gpu import AMDGPUDevice, NvidiaGPUDevice
    from codecarbon.external.hardware import GPU

    # CodeCarbon 3.3 would choose by itself, but finds no GPU by its UUID (it strips the G of "GPU-" from it), bills
    # all of them where CUDA_VISIBLE_DEVICES is empty, and takes an index for that of the bus.
    parts: list[Any] = [part for part in tracker._hardware if isinstance(part, GPU)]
    devices: list[Any] = [device for part in parts for device in part.devices.devices]
    amd = not any(isinstance(device, NvidiaGPUDevice) for device in devices)
    maker = AMDGPUDevice if amd else NvidiaGPUDevice
    gpus = [Gpu(one.gpu_index, str(one._uuid), str(one._gpu_name)) for one in devices if isinstance(one, maker)]
    if gpu_ids is not None:
        selection = select_gpus(gpu_ids, gpus, mig_parent=_mig_parent)
    else:
        selection = select_visible_gpus(os.environ, gpus, mig_parent=_mig_parent, amd=amd)
    for part in parts:
        # One failing device makes CodeCarbon drop the energy of all that it asks, so the others are not even asked.
        kept = [one for one in part.devices.devices if isinstance(one, maker) and one.gpu_index in selection.indices]
        part.devices.devices = kept
        part.devices.device_count = len(kept)
        part.gpu_ids = list(selection.indices)
        part._gpu_ids_resolved = True
    return selection


def _mig_parent(uuid: str) -> int | None:
    """The index of the GPU that holds a MIG instance, or None where there is no such instance."""
    from codecarbon.core.gpu import pynvml

    if pynvml is None:
        return None
    try:
        instance = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return int(pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)))
    except pynvml.NVMLError:
        return None
