"""CodeCarbon's tracker, configured to only measure, and only the job's own GPUs."""

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
    """A tracker, its selected GPUs and their UUIDs, and the reader of their energy."""

    tracker: Any
    gpus: GpuSelection
    gpu_uuids: tuple[str, ...]
    gpu_reader: GpuEnergyReader


def open_tracker(
    cpu_power_w: float | None, ram_power_w: float | None, gpu_ids: Sequence[GpuId] | None
) -> TrackerHandle:
    """Open a CodeCarbon tracker that uses no network, writes no file, and is ready to start a task.

    Raises `GpuNotFound` where `gpu_ids` names a GPU that does not exist.
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

    # CodeCarbon takes a forced power as the power at full load, and counts a tenth of it for an idle processor.
    # In its constant mode it counts a fixed share of the nominal power at any load.
    processors: list[Any] = [part for part in tracker._hardware if isinstance(part, CPU)]
    for processor in processors:
        processor._mode = "constant"
        processor._tdp = cpu_power_w / CONSUMPTION_PERCENTAGE_CONSTANT


def _restrict_gpus(tracker: Any, gpu_ids: Sequence[GpuId] | None) -> GpuSelection:
    """Restrict the tracker to the given GPUs, or else to those visible to this process."""
    from codecarbon.core.gpu import AMDGPUDevice, NvidiaGPUDevice
    from codecarbon.external.hardware import GPU

    # CodeCarbon 3.3 can select GPUs, but finds none by UUID (it strips the G of "GPU-"), meters all of them where
    # CUDA_VISIBLE_DEVICES is empty, and takes an index as that of the bus.
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
        # A failing device makes CodeCarbon drop the energy of all that it reads, so the others are not read.
        kept = [one for one in part.devices.devices if isinstance(one, maker) and one.gpu_index in selection.indices]
        part.devices.devices = kept
        part.devices.device_count = len(kept)
        part.gpu_ids = list(selection.indices)
        part._gpu_ids_resolved = True
    return selection


def _mig_parent(uuid: str) -> int | None:
    """Return the index of the GPU that contains a MIG instance, or None where the instance does not exist."""
    from codecarbon.core.gpu import pynvml

    if pynvml is None:
        return None
    try:
        instance = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return int(pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance)))
    except pynvml.NVMLError:
        return None
