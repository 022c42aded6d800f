from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from greencore.energy import EnergyInterval

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": NOON.replace(tzinfo=None)}, "start is 2026-11-23T12:00:00: expected an aware time in UTC"),
        ({"end": NOON - timedelta(seconds=1)}, "expected no earlier than"),
        ({"gpu_kwh": -1e-9}, "gpu_kwh is -1e-09"),
        ({"cpu_kwh": float("nan")}, "cpu_kwh is nan"),
    ],
)
def test_an_invalid_interval_is_refused(fields: dict[str, Any], message: str) -> None:
    possible: dict[str, Any] = {
        "start": NOON,
        "end": NOON,
        "cpu_kwh": 0.1,
        "gpu_kwh": 0.2,
        "ram_kwh": 0.3,
        "cpu_method": "RAPL",
        "gpu_method": "NVML energy counter",
        "ram_method": "capacity estimate",
    }
    assert EnergyInterval(**possible).energy_kwh == pytest.approx(0.6)
    with pytest.raises(ValueError, match=message):
        EnergyInterval(**(possible | fields))


def minute() -> EnergyInterval:
    return EnergyInterval(NOON, NOON + timedelta(seconds=60), 0.6, 1.2, 0.3, "RAPL", "none", "capacity estimate")


def test_a_part_has_its_share_of_each_energy_and_the_methods_of_the_whole() -> None:
    part = minute().slice(NOON + timedelta(seconds=10), NOON + timedelta(seconds=30))
    assert (part.cpu_kwh, part.gpu_kwh, part.ram_kwh) == pytest.approx((0.2, 0.4, 0.1))
    assert (part.start, part.end) == (NOON + timedelta(seconds=10), NOON + timedelta(seconds=30))
    assert (part.cpu_method, part.gpu_method, part.ram_method) == ("RAPL", "none", "capacity estimate")


def test_the_parts_of_an_interval_add_up_to_it() -> None:
    cuts = [NOON + timedelta(seconds=second) for second in (0, 7, 13, 60)]
    parts = [minute().slice(start, end) for start, end in pairwise(cuts)]
    assert sum(part.energy_kwh for part in parts) == pytest.approx(minute().energy_kwh, rel=1e-12)


def test_the_one_part_of_an_interval_of_no_length_has_all_of_its_energy() -> None:
    instant = EnergyInterval(NOON, NOON, 0.6, 1.2, 0.3, "RAPL", "none", "capacity estimate")
    assert instant.slice(NOON, NOON) == instant


@pytest.mark.parametrize(("start", "end"), [(-1, 30), (30, 61), (30, 20)])
def test_a_part_outside_of_its_interval_is_refused(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="expected it within the interval"):
        minute().slice(NOON + timedelta(seconds=start), NOON + timedelta(seconds=end))
