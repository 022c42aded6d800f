"""Energy is estimated, under a method that says so, where a meter does not answer."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from codecarbon import OfflineEmissionsTracker
from codecarbon.core.cpu import IntelRAPL
from codecarbon.core.rapl import RAPLFile
from codecarbon.external.hardware import CPU

from greencore.energy import EnergyInterval, EnergyMeter, is_estimate, is_unresponsive, source
from greencore.energy.codecarbon.tracker import start_tracker
from greencore.energy.interval import JOULES_PER_KWH
from tests.greencore.energy.intervals import seconds
from tests.greencore.energy.test_gpus import Board, Nvml, machine

pytestmark = pytest.mark.fault(number=14)


def watts(kwh: float, interval: EnergyInterval) -> float:
    return kwh * JOULES_PER_KWH / seconds(interval)


def metered(
    *events: Callable[[], object], pause: float = 0.6, **settings: Any
) -> tuple[list[EnergyInterval], EnergyMeter]:
    """Return the intervals before, between and after the events, and their meter."""
    taken: list[EnergyInterval] = []
    with EnergyMeter(taken.append, **settings) as meter:
        for event in events:
            time.sleep(pause)
            meter.close_interval()
            event()
        time.sleep(pause)
    return taken, meter


def breaking(nvml: Nvml, *calls: str, error: Exception | None = None) -> Callable[[], None]:
    """Return an event after which these calls of the driver fail."""

    def fail(*_: Any) -> Any:
        raise nvml.NVMLError(15) if error is None else error

    def break_driver() -> None:
        for call in calls:
            setattr(nvml, call, fail)

    return break_driver


def mending(nvml: Nvml) -> Callable[[], None]:
    def mend_driver() -> None:
        for call in [name for name in vars(nvml) if name.startswith("nvmlDevice")]:
            delattr(nvml, call)

    return mend_driver


@pytest.mark.parametrize("error", [None, OSError("the driver is gone"), RuntimeError("lost")], ids=repr)
def test_a_gpu_whose_driver_fails_is_estimated_by_its_last_known_power(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    nvml = machine(monkeypatch, Board(0, "GPU-aa11", 100.0))
    fail = breaking(nvml, "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage", error=error)
    (before, after), _ = metered(fail, cpu_power_w=40, ram_power_w=10)
    assert (before.gpu_method, is_unresponsive(before.gpu_method)) == ("NVML energy counter", False)
    assert after.gpu_method == "NVML does not answer: estimate by its last known power"
    assert is_estimate(after.gpu_method)
    assert watts(after.gpu_kwh, after) == pytest.approx(100, rel=0.1)
    assert watts(after.cpu_kwh, after) == pytest.approx(40, rel=0.1)


def test_estimated_energy_is_deducted_once_the_gpu_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = machine(monkeypatch, Board(0, "GPU-aa11", 100.0))
    fail = breaking(nvml, "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage")
    taken, meter = metered(fail, mending(nvml), cpu_power_w=40, ram_power_w=10)
    assert [is_unresponsive(interval.gpu_method) for interval in taken] == [False, True, False]
    assert sum(interval.gpu_kwh for interval in taken) * JOULES_PER_KWH == pytest.approx(
        100 * sum(map(seconds, taken)), rel=0.05
    )
    assert sum(interval.energy_kwh for interval in taken) == pytest.approx(meter.tracker_total_kwh, rel=1e-6)


def test_a_gpu_that_fails_leaves_the_others_metered(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = machine(monkeypatch, Board(0, "GPU-aa11", 100.0), Board(1, "GPU-bb22", 200.0))
    whole = nvml.nvmlDeviceGetTotalEnergyConsumption

    def lose_the_second(board: Board) -> int:
        if board.index == 1:
            raise OSError("fallen off the bus")
        return whole(board)

    def lose() -> None:
        nvml.nvmlDeviceGetTotalEnergyConsumption = lose_the_second  # type: ignore[method-assign]

    (_, after), _ = metered(lose, cpu_power_w=40, ram_power_w=10)
    assert watts(after.gpu_kwh, after) == pytest.approx(300, rel=0.1)
    assert after.gpu_method == "NVML does not answer: estimate by its last known power, NVML energy counter"


def test_an_energy_counter_that_does_not_change_counts_as_not_answering(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = machine(monkeypatch, Board(0, "GPU-aa11", 100.0))

    def freeze() -> None:
        stuck = nvml.nvmlDeviceGetTotalEnergyConsumption(Board(0, "GPU-aa11", 100.0))
        monkeypatch.setattr(nvml, "nvmlDeviceGetTotalEnergyConsumption", lambda _: stuck)

    (_, _, later), _ = metered(freeze, lambda: None, pause=1.2, cpu_power_w=40, ram_power_w=10)
    assert is_unresponsive(later.gpu_method)
    assert watts(later.gpu_kwh, later) == pytest.approx(100, rel=0.1)


class Rapl:
    """A Linux RAPL counter of a processor of 65 W, updated by a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stopped = folder, threading.Event()
        self.counter = folder / "energy_uj"
        (folder / "max_energy_range_uj").write_text(str(2**40))
        self._count()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _count(self) -> None:
        half_written = self._folder / "new"
        half_written.write_text(str(int(time.perf_counter() * 65e6)))
        half_written.replace(self.counter)

    def _run(self) -> None:
        while not self._stopped.wait(0.005):
            self._count()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def vanish(self) -> None:
        self.stop()
        self.counter.unlink()


@pytest.fixture
def rapl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Rapl:
    counter = Rapl(tmp_path)
    whole = start_tracker

    def start_with_rapl(*settings: Any, **others: Any) -> Any:
        opened = whole(*settings, **others)
        processor = next(part for part in opened._tracker._hardware if isinstance(part, CPU))
        interface = IntelRAPL.__new__(IntelRAPL)
        file = RAPLFile(
            name="Processor Energy Delta_0(kWh)",
            path=str(counter.counter),
            max_path=str(tmp_path / "max_energy_range_uj"),
        )
        interface._rapl_files, interface._mirrored_candidates, interface._cpu_details = [file], {}, {}
        processor._intel_interface, processor._mode = interface, "intel_rapl"  # type: ignore[assignment]
        return opened

    monkeypatch.setattr(source, "start_tracker", start_with_rapl)
    return counter


def test_a_missing_rapl_counter_is_replaced_by_the_last_known_power(rapl: Rapl) -> None:
    (before, after), meter = metered(rapl.vanish, ram_power_w=10)
    assert before.cpu_method == "RAPL"
    assert watts(before.cpu_kwh, before) == pytest.approx(65, rel=0.1)
    assert after.cpu_method == "RAPL does not answer: estimate by its last known power"
    assert watts(after.cpu_kwh, after) == pytest.approx(65, rel=0.15)
    assert meter.tracker_total_kwh is None


def test_a_stopped_rapl_counter_is_replaced_by_the_last_known_power(rapl: Rapl) -> None:
    (_, _, later), _ = metered(rapl.stop, lambda: None, pause=1.2, ram_power_w=10)
    assert later.cpu_method == "RAPL does not answer: estimate by its last known power"
    assert watts(later.cpu_kwh, later) == pytest.approx(65, rel=0.15)


def test_a_rapl_counter_that_never_changes_is_replaced_by_the_design_power(rapl: Rapl) -> None:
    rapl.stop()
    (only,), _ = metered(pause=1.2, ram_power_w=10)
    assert only.cpu_method == "RAPL does not answer: estimate by its design power"
    assert only.cpu_kwh > 0


def raise_error(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken")


def hang(*_: Any, **__: Any) -> Any:
    time.sleep(3)


@pytest.mark.parametrize("fault", [raise_error, hang])
@pytest.mark.parametrize("call", ["__init__", "start_task"])
def test_where_the_meter_cannot_be_opened_energy_is_estimated(
    monkeypatch: pytest.MonkeyPatch, call: str, fault: Callable[..., Any]
) -> None:
    monkeypatch.setattr(source, "OPEN_SECONDS", 0.3)
    monkeypatch.setattr(OfflineEmissionsTracker, call, fault)
    (first, last), meter = metered(lambda: None, pause=0.3, assumed_gpu_power_w=500)
    for interval in (first, last):
        assert watts(interval.cpu_kwh, interval) == pytest.approx(4 * (psutil.cpu_count() or 1), rel=0.01)
        assert watts(interval.gpu_kwh, interval) == pytest.approx(500, rel=0.01)
        assert interval.ram_kwh > 0
        assert interval.cpu_method == "CodeCarbon does not answer: estimate by its design power"
        assert is_estimate(interval.gpu_method)
    assert meter.tracker_total_kwh is None


@pytest.mark.parametrize("fault", [raise_error, hang])
def test_where_a_measurement_fails_or_hangs_energy_is_estimated(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Any]
) -> None:
    monkeypatch.setattr(source, "READ_SECONDS", 0.2)

    def fail() -> None:
        monkeypatch.setattr(OfflineEmissionsTracker, "_measure_power_and_energy", fault)

    began = time.monotonic()
    (before, after, later), meter = metered(fail, lambda: None, pause=0.6)
    assert time.monotonic() - began < 20
    for part in ("cpu", "ram"):
        assert getattr(later, f"{part}_method") == "CodeCarbon does not answer: estimate by its last known power"
        known = watts(getattr(before, f"{part}_kwh"), before)
        assert watts(getattr(after, f"{part}_kwh"), after) == pytest.approx(known, rel=0.05)
    assert meter.tracker_total_kwh is None


def test_energy_estimated_while_a_measurement_failed_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        monkeypatch.setattr(OfflineEmissionsTracker, "_do_measurements", raise_error)

    taken, _ = metered(fail, monkeypatch.undo, pause=0.6, cpu_power_w=40, ram_power_w=10)
    assert len(taken) == 3
    assert sum(interval.energy_kwh for interval in taken) * JOULES_PER_KWH == pytest.approx(
        50 * sum(map(seconds, taken)), rel=0.05
    )


def test_a_tracker_without_a_final_result_loses_no_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_nothing() -> None:
        monkeypatch.setattr(OfflineEmissionsTracker, "stop_task", lambda *_: None)

    (_, after), meter = metered(give_nothing, cpu_power_w=40, ram_power_w=10)
    assert watts(after.energy_kwh, after) == pytest.approx(50, rel=0.05)
    assert meter.tracker_total_kwh is None


def test_energy_that_is_nan_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil() -> None:
        def measure(tracker: Any) -> None:
            tracker._total_cpu_energy.kWh = float("nan")

        monkeypatch.setattr(OfflineEmissionsTracker, "_measure_power_and_energy", measure)

    (before, after), _ = metered(spoil)
    assert is_unresponsive(after.cpu_method)
    assert watts(after.cpu_kwh, after) == pytest.approx(watts(before.cpu_kwh, before), rel=0.05)


def test_a_call_whose_wait_was_interrupted_still_counts_as_running() -> None:
    called = source.EnergySource(None, None, assumed_gpu_power_w=0.0, monotonic=time.monotonic)
    answered, main = threading.Event(), threading.main_thread().ident
    assert main is not None
    threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        called._call(answered.wait, seconds=10.0)
    try:
        with pytest.raises(source.CallTimedOut, match="an earlier call is still running"):
            called._call(lambda: None, seconds=10.0)
    finally:
        answered.set()
