"""The meter on a machine with several GPUs: the driver's NVML is a fake, CodeCarbon is real."""

import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from codecarbon.core import gpu, gpu_nvidia, hardware_cache

from greencore.energy import EnergyInterval, EnergyMeter
from greencore.energy.interval import JOULES_PER_KWH


@dataclass(frozen=True)
class Board:
    """A GPU of constant power; `broken` names the readings that its driver does not provide."""

    index: int
    uuid: str
    power_w: float
    broken: tuple[str, ...] = ()


class Nvml:
    """Fake of the NVML calls that CodeCarbon and the meter make, for the given boards."""

    NVMLError = pynvml.NVMLError
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __init__(self, boards: list[Board]) -> None:
        self._boards = boards
        self.counters_read = set[int]()

    def __getattr__(self, name: str) -> Any:
        steady: dict[str, Any] = {
            "nvmlInit": None,
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=1, free=1, used=0),
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=50),
            "nvmlDeviceGetTemperature": 40,
            "nvmlDeviceGetComputeMode": 0,
            "nvmlDeviceGetComputeRunningProcesses": [],
            "nvmlDeviceGetGraphicsRunningProcesses": [],
        }
        return lambda *_: steady[name]

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:  # noqa: N802
        return self._boards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "MIG-55":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, _: str) -> Board:  # noqa: N802
        return self._boards[1]

    def nvmlDeviceGetIndex(self, board: Board) -> int:  # noqa: N802
        return board.index

    def nvmlDeviceGetName(self, _: Board) -> str:  # noqa: N802
        return "H100"

    def nvmlDeviceGetUUID(self, board: Board) -> str:  # noqa: N802
        return board.uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, board: Board) -> int:  # noqa: N802
        self.counters_read.add(board.index)
        self._fail(board, "counter")
        return int(time.perf_counter() * board.power_w * 1000)

    def nvmlDeviceGetPowerUsage(self, board: Board) -> int:  # noqa: N802
        self._fail(board, "power")
        return int(board.power_w * 1000)

    def _fail(self, board: Board, part: str) -> None:
        if part in board.broken:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def machine(monkeypatch: pytest.MonkeyPatch, *boards: Board) -> Nvml:
    """Make CodeCarbon detect these boards."""
    nvml = Nvml(list(boards))
    monkeypatch.setattr(gpu_nvidia, "pynvml", nvml)
    monkeypatch.setattr(gpu, "pynvml", nvml)
    monkeypatch.setattr(gpu, "PYNVML_AVAILABLE", True)
    monkeypatch.setattr(gpu, "is_nvidia_system", lambda: True)
    monkeypatch.setattr(hardware_cache, "_plans", {})
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CODECARBON_GPU_IDS"):
        monkeypatch.delenv(name, raising=False)
    return nvml


def three_boards(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    return machine(monkeypatch, Board(0, "GPU-aa11", 100.0), Board(1, "GPU-bb22", 200.0), Board(2, "GPU-cc33", 400.0))


def metered(**settings: Any) -> tuple[EnergyInterval, EnergyMeter]:
    taken = list[EnergyInterval]()
    with EnergyMeter(taken.append, cpu_power_w=40, ram_power_w=10, **settings) as meter:
        time.sleep(0.25)
    (interval,) = taken
    return interval, meter


def watts(interval: EnergyInterval) -> float:
    return interval.gpu_kwh * JOULES_PER_KWH / (interval.end - interval.start).total_seconds()


@pytest.mark.parametrize(
    ("variable", "power_w", "method"),
    [
        (None, 700, "NVML energy counter"),
        ("0", 100, "NVML energy counter"),
        ("2,0", 500, "NVML energy counter"),
        ("GPU-bb22", 200, "NVML energy counter"),
        ("MIG-55", 200, "NVML energy counter (the whole GPU of a MIG instance)"),
        ("", 0, "none"),
        ("-1", 0, "none"),
    ],
)
def test_only_the_gpus_visible_to_the_process_are_metered(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, power_w: float, method: str
) -> None:
    three_boards(monkeypatch)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    interval, meter = metered()
    assert watts(interval) == pytest.approx(power_w, rel=0.1)
    assert interval.energy_kwh == pytest.approx(meter.tracker_total_kwh, rel=1e-9)
    assert interval.gpu_method == method


@pytest.mark.parametrize(("gpu_ids", "power_w"), [([1], 200), (["cc33"], 400), ([], 0)])
def test_the_gpus_named_by_the_caller_are_metered_in_any_environment(
    monkeypatch: pytest.MonkeyPatch, gpu_ids: list[int | str], power_w: float
) -> None:
    three_boards(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("CODECARBON_GPU_IDS", "0")
    interval, _ = metered(gpu_ids=gpu_ids)
    assert watts(interval) == pytest.approx(power_w, rel=0.1)


def test_consecutive_meters_meter_their_own_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    three_boards(monkeypatch)
    assert [round(watts(metered(gpu_ids=ids)[0]), -2) for ids in ([], [1], [0, 2])] == [0, 200, 500]


def test_a_gpu_of_another_job_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = three_boards(monkeypatch)
    taken = list[EnergyInterval]()
    with EnergyMeter(taken.append, gpu_ids=[1]) as meter:
        nvml.counters_read.clear()
        meter.close_interval()
    assert nvml.counters_read == {1}


def test_an_unknown_gpu_is_refused_on_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    three_boards(monkeypatch)
    taken = list[EnergyInterval]()
    with pytest.raises(ValueError, match=r"gpu_ids\[0\] is 5"), EnergyMeter(taken.append, gpu_ids=[5]):
        pass


@pytest.mark.parametrize(
    ("broken", "method", "power_w"),
    [
        ((), "NVML energy counter", 100),
        (("counter",), "NVML sampled power", 100),
        (("counter", "power"), "NVML does not answer: estimate by its design power", 700),
    ],
)
def test_the_method_distinguishes_energy_counter_sampled_power_and_power_limit(
    monkeypatch: pytest.MonkeyPatch, broken: tuple[str, ...], method: str, power_w: float
) -> None:
    machine(monkeypatch, Board(0, "GPU-aa11", 100.0, broken))
    interval, _ = metered()
    assert interval.gpu_method == method
    assert watts(interval) == pytest.approx(power_w, rel=0.1)


def test_gpus_of_both_kinds_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, Board(0, "GPU-aa11", 100.0), Board(1, "GPU-bb22", 100.0, ("counter",)))
    assert metered()[0].gpu_method == "NVML energy counter, NVML sampled power"


@pytest.mark.gpu
def test_a_real_gpu_is_metered_only_where_it_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    uuid = str(torch.cuda.get_device_properties(0).uuid)
    for settings, billed in (({}, True), ({"gpu_ids": [uuid]}, True), ({"gpu_ids": []}, False)):
        interval, _ = metered(**settings)
        assert (interval.gpu_kwh > 0) == billed
        assert interval.gpu_method == ("NVML energy counter" if billed else "none")
