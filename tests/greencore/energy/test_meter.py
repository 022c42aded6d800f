import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from greencore.energy import EnergyInterval, EnergyMeter
from greencore.energy.interval import JOULES_PER_KWH
from tests.greencore.energy.intervals import seconds

# The reported intervals, their meter, the interval closed on demand, and the elapsed seconds.
Metered = tuple[list[EnergyInterval], EnergyMeter, EnergyInterval, float]


def meter(taken: list[EnergyInterval], **settings: Any) -> EnergyMeter:
    """Return a meter with configured power, 40 W for the processor and 10 W for memory, so that its energy is known."""
    return EnergyMeter(taken.append, **({"cpu_power_w": 40.0, "ram_power_w": 10.0} | settings))


def joules(interval: EnergyInterval) -> float:
    return interval.energy_kwh * JOULES_PER_KWH


def refusing_once() -> tuple[list[EnergyInterval], threading.Event, Callable[[EnergyInterval], None]]:
    """Return the accepted intervals, an event set at the first failure, and a callback that fails once."""
    taken: list[EnergyInterval] = []
    refused = threading.Event()

    def refuse_once(interval: EnergyInterval) -> None:
        if not refused.is_set():
            refused.set()
            raise OSError("the disk is full")
        taken.append(interval)

    return taken, refused, refuse_once


@pytest.fixture(scope="module")
def metered() -> Metered:
    """Meter three seconds in intervals of one second, with one more closed on demand after 1.5 s."""
    taken: list[EnergyInterval] = []
    with meter(taken, interval_seconds=1.0) as running:
        begin = time.perf_counter()
        time.sleep(1.5)
        cut = running.close_interval()
        time.sleep(1.5)
        elapsed = time.perf_counter() - begin
    return taken, running, cut, elapsed


def test_the_intervals_sum_to_power_times_time(metered: Metered) -> None:
    taken, _, _, elapsed = metered
    assert sum(map(joules, taken)) == pytest.approx(50 * elapsed, rel=0.03)
    assert sum(interval.cpu_kwh for interval in taken) * JOULES_PER_KWH == pytest.approx(40 * elapsed, rel=0.03)
    assert sum(interval.ram_kwh for interval in taken) * JOULES_PER_KWH == pytest.approx(10 * elapsed, rel=0.03)


def test_the_intervals_sum_to_codecarbons_total(metered: Metered) -> None:
    taken, running, _, _ = metered
    assert sum(interval.energy_kwh for interval in taken) == pytest.approx(running.tracker_total_kwh, rel=1e-9)


def test_intervals_are_contiguous_and_hold_their_own_energy(metered: Metered) -> None:
    taken, _, _, elapsed = metered
    assert all(earlier.end == later.start for earlier, later in pairwise(taken))
    assert sum(map(seconds, taken)) == pytest.approx(elapsed, abs=0.1)
    for interval in taken:
        assert joules(interval) == pytest.approx(50 * seconds(interval), abs=50 * 0.05)


def test_a_thread_closes_intervals_in_time_and_closing_on_demand_restarts_its_period(metered: Metered) -> None:
    taken, _, cut, _ = metered
    assert cut in taken
    assert [round(seconds(interval), 1) for interval in taken] == pytest.approx([1.0, 0.5, 1.0, 0.5], abs=0.11)


def test_configured_power_is_named_as_the_method(metered: Metered) -> None:
    taken, _, _, _ = metered
    assert {(interval.cpu_method, interval.ram_method) for interval in taken} == {
        ("configured power", "configured power")
    }


def test_without_configured_power_the_method_of_measurement_is_named() -> None:
    taken: list[EnergyInterval] = []
    with EnergyMeter(taken.append):
        time.sleep(0.2)
    (interval,) = taken
    assert interval.energy_kwh > 0
    assert interval.cpu_method in {"RAPL", "TDP estimate", "Windows EMI", "Intel Power Gadget", "powermetrics"}
    assert interval.gpu_method in {
        "NVML energy counter",
        "NVML sampled power",
        "AMD SMI energy counter",
        "AMD SMI sampled power",
        "powermetrics",
        "none",
    }
    assert (interval.gpu_kwh == 0) or (interval.gpu_method != "none")
    assert interval.ram_method == "capacity estimate"


def test_configuration_and_environment_are_ignored_and_no_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".codecarbon.config").write_text(
        "[codecarbon]\npue=3\noutput_methods=csv\ntracking_mode=process\ncloud_provider=aws\n", encoding="utf-8"
    )
    monkeypatch.setenv("CODECARBON_OUTPUT_DIR", "absent")
    monkeypatch.setenv("CODECARBON_ALLOW_MULTIPLE_RUNS", "False")
    taken: list[EnergyInterval] = []
    with meter(taken):
        time.sleep(0.3)
    (interval,) = taken
    assert joules(interval) == pytest.approx(50 * seconds(interval), rel=0.1)
    assert [file.name for file in tmp_path.iterdir()] == [".codecarbon.config"]
    assert capfd.readouterr() == ("", "")


def test_no_thread_remains_after_the_meter_closes() -> None:
    before = set(threading.enumerate())
    taken: list[EnergyInterval] = []
    # CodeCarbon samples once a second: leaving at that instant is the hardest case.
    with meter(taken):
        time.sleep(1.0)
    deadline = time.monotonic() + 3
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(threading.enumerate()) - before == set()


def test_an_error_in_the_thread_is_raised_and_its_interval_is_reported_again() -> None:
    taken, refused, refuse_once = refusing_once()

    with EnergyMeter(refuse_once, interval_seconds=0.2, cpu_power_w=40, ram_power_w=10) as running:
        assert refused.wait(5)
        with pytest.raises(OSError, match="the disk is full"):
            running.close_interval()
        running.close_interval()
    assert all(earlier.end == later.start for earlier, later in pairwise(taken))
    assert seconds(taken[0]) == pytest.approx(0.2, abs=0.1)
    assert sum(interval.energy_kwh for interval in taken) == pytest.approx(running.tracker_total_kwh, rel=1e-9)


def test_an_error_kept_by_the_thread_is_raised_on_leaving() -> None:
    taken, refused, refuse_once = refusing_once()

    def train() -> None:
        with EnergyMeter(refuse_once, interval_seconds=0.2, cpu_power_w=40, ram_power_w=10):
            assert refused.wait(5)

    with pytest.raises(OSError, match="the disk is full"):
        train()
    assert len(taken) >= 2


def test_an_error_of_the_training_is_not_hidden_by_one_of_the_meter() -> None:
    def refuse(interval: EnergyInterval) -> None:
        raise OSError("the disk is full")

    with pytest.raises(ZeroDivisionError) as caught, EnergyMeter(refuse, cpu_power_w=40, ram_power_w=10):
        raise ZeroDivisionError
    assert caught.value.__notes__ == ["the energy meter failed too: OSError('the disk is full')"]


def test_a_meter_works_only_once_and_only_in_its_context() -> None:
    taken: list[EnergyInterval] = []
    running = meter(taken)
    with pytest.raises(RuntimeError, match="is not open"):
        running.close_interval()
    with running:
        pass
    with pytest.raises(RuntimeError, match="is not open"):
        running.close_interval()
    with pytest.raises(RuntimeError, match="was opened before"), running:
        pass


def _cut_in_child(running: EnergyMeter, answers: Any) -> None:
    try:
        running.close_interval()
    except RuntimeError as error:
        answers.put(str(error))
    else:
        answers.put("measured")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only a fork inherits an open meter")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_cannot_close_an_interval() -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    taken: list[EnergyInterval] = []
    with meter(taken) as running:
        child = context.Process(target=_cut_in_child, args=(running, answers))
        child.start()
        assert "open it in the process that trains" in answers.get(timeout=10)
        child.join(10)
    answers.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval_seconds": 0}, "interval_seconds is 0: expected more than 0 and at most 60"),
        ({"interval_seconds": 61}, "interval_seconds is 61"),
        ({"interval_seconds": float("nan")}, "interval_seconds is nan"),
        ({"cpu_power_w": -1.0}, "cpu_power_w is -1.0"),
        ({"ram_power_w": float("inf")}, "ram_power_w is inf"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meter([], **settings)


def test_codecarbon_logs_errors_alone() -> None:
    with meter([]):
        assert logging.getLogger("codecarbon").level == logging.ERROR
