from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.carbon import IntensitySeries, NoReading
from greencore.policy.backtesting.slots import Slots
from tests.greencore.policy.grids import MIDNIGHT, at, pieces, series


@pytest.mark.parametrize(
    ("minutes", "slot_minutes"),
    [(60, 60), (30, 30), (15, 15), (5, 5), (7, 5), (1, 5), (20, 20), (120, 60), (90, 30), (45, 15)],
)
def test_slots_resolve_every_reading_down_to_five_minutes(minutes: int, slot_minutes: int) -> None:
    slots = Slots.from_series(series([100.0, 200.0, 300.0, 50.0] * 10, minutes=minutes))
    assert slots.step_hours * 60 == pytest.approx(slot_minutes)
    assert slots.per_hour == 60 // slot_minutes
    assert slots.origin == MIDNIGHT


def test_an_hourly_reading_is_kept_among_half_hourly_ones() -> None:
    slots = Slots.from_series(pieces((0, 1, 100.0), (1, 1.5, 300.0), (1.5, 2, 50.0), (2, 3, 80.0)))
    assert slots.intensity.tolist() == [100, 100, 300, 50, 80, 80]
    assert slots.hourly().tolist() == [100, 175, 80]


def test_a_gap_takes_the_reading_before_it() -> None:
    slots = Slots.from_series(pieces((0, 1, 100.0), (4, 5, 300.0)))
    assert slots.intensity.tolist() == [100, 100, 100, 100, 300]
    assert slots.end == at(5)


def test_the_first_reading_fills_its_hour() -> None:
    slots = Slots.from_series(pieces((0.5, 1.5, 100.0), (1.5, 2.5, 200.0)))
    assert slots.origin == MIDNIGHT
    assert slots.intensity.tolist() == [100, 100, 100, 200, 200]
    assert slots.hourly().tolist() == [100, 150]


def test_a_slot_of_several_readings_has_their_time_weighted_mean() -> None:
    # Two minutes of 100 and three of 200.
    slots = Slots.from_series(pieces((0, 2 / 60, 100.0), (2 / 60, 1, 200.0)))
    assert slots.intensity[0] == pytest.approx(160)
    assert slots.intensity[1:].tolist() == [200.0] * 11


def test_readings_of_fractions_of_a_second_are_averaged() -> None:
    slots = Slots.from_series(pieces((0, 1.0000001, 100.0), (1.0000001, 2, 300.0)))
    assert slots.per_hour == 12
    assert slots.intensity[:12].tolist() == [100.0] * 12
    assert slots.intensity[13:24].tolist() == [300.0] * 11


def test_an_empty_series_is_refused() -> None:
    with pytest.raises(NoReading, match="empty series"):
        Slots.from_series(IntensitySeries())


@pytest.mark.parametrize("minutes", [60, 5])
def test_a_slot_within_a_reading_has_exactly_its_value_after_a_year(minutes: int) -> None:
    values = np.tile([123.456789, 1 / 3, 0.0, 678.9], 8760 // 4 if minutes == 60 else 12_000)
    assert np.array_equal(Slots.from_series(series(values.tolist(), minutes=minutes)).intensity, values)


def test_a_reading_of_0_between_dirty_ones_stays_0() -> None:
    slots = Slots.from_series(series([987.65, 0.0, 0.0, 0.0, 0.0, 543.21] * 200, minutes=7))
    assert slots.intensity.min() == 0


def test_time_and_position_are_inverse() -> None:
    slots = Slots.from_series(series([1.0] * 48, minutes=30))
    assert slots.time(3) == at(1.5)
    assert slots.position(at(1.5)) == 3
    assert slots.position(slots.time(5.25)) == pytest.approx(5.25)


def test_an_incomplete_last_hour_is_left_out() -> None:
    assert Slots.from_series(series([1.0, 3.0, 5.0], minutes=30)).hourly().tolist() == [2.0]


@given(
    lengths=st.lists(st.sampled_from([5, 7, 10, 15, 30, 60, 61, 90]), min_size=1, max_size=12),
    gaps=st.lists(st.sampled_from([0, 0, 0, 3, 30, 180]), min_size=12, max_size=12),
    values=st.lists(st.floats(0, 1000), min_size=12, max_size=12),
    offset=st.sampled_from([0, 0, 13, 30]),
)
def test_the_integral_of_a_series_is_that_of_its_slots(
    lengths: list[int], gaps: list[int], values: list[float], offset: int
) -> None:
    given_pieces, time = [], offset / 60
    for length, gap, value in zip(lengths, gaps, values, strict=False):
        given_pieces.append((time, time + length / 60, value))
        time += (length + gap) / 60
    readings = pieces(*given_pieces)
    slots = Slots.from_series(readings)
    assert (slots.intensity >= 0).all()
    assert slots.intensity.max() <= max(values[: len(lengths)]) * (1 + 1e-9) + 1e-9
    expected = readings.mean(slots.origin, slots.end).gco2e_per_kwh
    assert slots.intensity.mean() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    for index, value in enumerate(slots.intensity.tolist()):
        start = slots.time(index)
        mean = readings.mean(start, start + timedelta(hours=slots.step_hours)).gco2e_per_kwh
        assert value == pytest.approx(mean, rel=1e-9, abs=1e-7)
