import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.carbon import IntensitySeries, NoReading, Reading
from greencore.carbon.accounting.pricing import (
    TRACKER_TOLERANCE,
    PricedInterval,
    is_settled,
    price_by_reading,
    price_interval,
    tracker_difference,
)
from greencore.energy import EnergyInterval, EnergyMeter

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Used:
    start: datetime
    end: datetime
    energy_kwh: float


def second(offset: float) -> datetime:
    return NOON + timedelta(seconds=offset)


def steps(*values: float, estimated: bool = False) -> IntensitySeries:
    """Readings of three seconds each, from noon."""
    return IntensitySeries(
        Reading(
            zone="ES",
            start=second(3 * place),
            end=second(3 * place + 3),
            gco2e_per_kwh=value,
            source="test",
            estimated=estimated,
            fetched_at=NOON,
        )
        for place, value in enumerate(values)
    )


def test_energy_is_priced_at_the_intensity_of_its_own_time_not_of_its_end() -> None:
    priced = price_interval(Used(second(0), second(6), 2.0), steps(100, 1000))
    assert priced.emissions_gco2e == pytest.approx(2.0 * (100 + 1000) / 2)
    assert priced.intensity_gco2e_per_kwh == pytest.approx(550)
    assert (priced.covered_share, priced.estimated, priced.sources) == (1.0, False, ("test",))


def test_the_parts_of_an_interval_emit_as_much_as_the_whole() -> None:
    series = steps(100, 1000, 300)
    whole = price_interval(Used(second(1), second(8), 7.0), series)
    parts = [price_interval(Used(second(1 + i), second(2 + i), 1.0), series) for i in range(7)]
    assert sum(part.emissions_gco2e or 0.0 for part in parts) == pytest.approx(whole.emissions_gco2e)
    assert whole.emissions_gco2e == pytest.approx(2 * 100 + 3 * 1000 + 2 * 300)


def test_a_price_beyond_the_readings_is_marked_as_an_estimate() -> None:
    priced = price_interval(Used(second(0), second(6), 1.0), steps(100))
    assert (priced.emissions_gco2e, priced.covered_share, priced.estimated) == (100.0, 0.5, True)


def test_energy_at_an_instant_has_the_intensity_of_that_instant() -> None:
    assert price_interval(Used(second(4), second(4), 0.5), steps(100, 1000)).emissions_gco2e == 500


def test_without_any_reading_there_is_no_price() -> None:
    with pytest.raises(NoReading):
        price_interval(Used(second(0), second(6), 1.0), IntensitySeries())


@pytest.mark.parametrize("energy_kwh", [-1.0, float("nan")])
def test_impossible_energy_is_refused(energy_kwh: float) -> None:
    with pytest.raises(ValueError, match="energy_kwh is"):
        price_interval(Used(second(0), second(6), energy_kwh), steps(100))


def test_an_interval_is_cut_where_the_intensity_changes_and_each_piece_has_its_own() -> None:
    pieces = price_by_reading(Used(second(1), second(8), 7.0), steps(100, 1000, 300))
    assert [(piece.start, piece.end, piece.intensity_gco2e_per_kwh) for piece in pieces] == [
        (second(1), second(3), 100),
        (second(3), second(6), 1000),
        (second(6), second(8), 300),
    ]
    assert [piece.energy_kwh for piece in pieces] == pytest.approx([2, 3, 2], rel=1e-15)
    assert [piece.emissions_gco2e for piece in pieces] == pytest.approx([200, 3000, 600], rel=1e-15)
    assert {(piece.covered_share, piece.estimated, piece.sources) for piece in pieces} == {(1.0, False, ("test",))}


def test_a_cut_at_the_edge_of_the_interval_makes_no_empty_piece() -> None:
    assert len(price_by_reading(Used(second(3), second(6), 1.0), steps(100, 1000, 300))) == 1


def test_a_piece_that_no_reading_covers_keeps_its_energy_and_has_no_price() -> None:
    piece, beyond = price_by_reading(Used(second(2), second(6), 8.0), steps(100))
    assert piece.emissions_gco2e == pytest.approx(2.0 * 100)
    assert beyond == PricedInterval(
        start=second(3),
        end=second(6),
        energy_kwh=6.0,
        intensity_gco2e_per_kwh=None,
        emissions_gco2e=None,
        covered_share=0.0,
        estimated=True,
        sources=(),
    )


def test_without_any_reading_the_whole_interval_waits_for_its_price() -> None:
    (piece,) = price_by_reading(Used(second(0), second(6), 1.0), IntensitySeries())
    assert (piece.energy_kwh, piece.emissions_gco2e) == (1.0, None)


def test_an_estimated_reading_makes_an_estimated_piece() -> None:
    (piece,) = price_by_reading(Used(second(0), second(3), 1.0), steps(100, estimated=True))
    assert (piece.estimated, piece.covered_share) == (True, 1.0)


@pytest.mark.parametrize(("offset", "emissions_gco2e"), [(3, 500.0), (2.9, 50.0), (6, None)])
def test_an_interval_of_no_length_is_one_piece_at_the_intensity_of_its_instant(
    offset: float, emissions_gco2e: float | None
) -> None:
    (piece,) = price_by_reading(Used(second(offset), second(offset), 0.5), steps(100, 1000))
    assert (piece.energy_kwh, piece.emissions_gco2e) == (0.5, emissions_gco2e)


def test_the_pue_multiplies_emissions_and_not_energy() -> None:
    used = Used(second(0), second(6), 2.0)
    for priced in (price_interval(used, steps(100, 100), pue=1.5), *price_by_reading(used, steps(100, 100), pue=1.5)):
        assert priced.pue == 1.5
        assert priced.emissions_gco2e == pytest.approx(priced.energy_kwh * 1.5 * 100)
    assert sum(piece.energy_kwh for piece in price_by_reading(used, steps(100, 100), pue=1.5)) == pytest.approx(2.0)


@pytest.mark.parametrize("pue", [0.99, float("nan"), float("inf")])
def test_an_impossible_pue_is_refused(pue: float) -> None:
    for pricing in (price_interval, price_by_reading):
        with pytest.raises(ValueError, match="pue is"):
            pricing(Used(second(0), second(6), 1.0), steps(100), pue=pue)


@given(
    st.lists(st.tuples(st.integers(1, 5_000_000), st.booleans(), st.integers(0, 1000)), max_size=12),
    st.integers(-3_000_000, 9_000_000),
    st.integers(1, 20_000_000),
    st.floats(0, 100),
)
def test_the_pieces_add_up_to_the_interval_and_each_has_the_price_of_its_time(
    lengths: list[tuple[int, bool, int]], begin: int, length: int, energy_kwh: float
) -> None:
    readings, reached = list[Reading](), NOON
    for microseconds, known, value in lengths:
        until = reached + timedelta(microseconds=microseconds)
        if known:
            readings.append(
                Reading(zone="ES", start=reached, end=until, gco2e_per_kwh=value, source="test", fetched_at=NOON)
            )
        reached = until
    series = IntensitySeries(readings)
    start = NOON + timedelta(microseconds=begin)
    used = Used(start, start + timedelta(microseconds=length), energy_kwh)
    pieces = price_by_reading(used, series)
    assert (pieces[0].start, pieces[-1].end) == (used.start, used.end)
    assert all(earlier.end == later.start for earlier, later in pairwise(pieces))
    assert math.fsum(piece.energy_kwh for piece in pieces) == pytest.approx(energy_kwh, rel=1e-12, abs=1e-300)
    for piece in pieces:
        middle = series.at(piece.start + (piece.end - piece.start) / 2)
        assert piece.intensity_gco2e_per_kwh == (None if middle is None else middle.gco2e_per_kwh)
    covered = math.fsum((piece.end - piece.start) / (used.end - used.start) * piece.covered_share for piece in pieces)
    if readings:
        assert covered == pytest.approx(price_interval(used, series).covered_share, abs=1e-12)
    if readings and covered == 1:
        assert math.fsum(piece.emissions_gco2e or 0.0 for piece in pieces) == pytest.approx(
            price_interval(used, series).emissions_gco2e, rel=1e-9, abs=1e-12
        )
    assert is_settled(used, series) == all(piece.covered_share == 1 for piece in pieces)


@pytest.mark.parametrize(
    ("start", "end", "known"),
    [(0, 6, True), (1, 5, True), (0, 3, True), (2, 6.1, False), (-0.1, 3, False), (7, 8, False), (3, 3, True)],
)
def test_a_piece_is_settled_where_measured_readings_cover_all_of_it(start: float, end: float, known: bool) -> None:
    assert is_settled(Used(second(start), second(end), 1.0), steps(100, 1000)) is known


@pytest.mark.parametrize(("start", "end"), [(0, 6), (4, 5), (3, 3)])
def test_an_estimated_reading_settles_nothing(start: float, end: float) -> None:
    measured, guessed = steps(100), steps(100, 1000, estimated=True).readings[1]
    series = IntensitySeries([*measured, guessed])
    assert not is_settled(Used(second(start), second(end), 1.0), series)
    assert is_settled(Used(second(0), second(3), 1.0), series)


def test_a_gap_between_measured_readings_settles_nothing() -> None:
    first, _, third = steps(100, 1000, 300)
    assert not is_settled(Used(second(0), second(9), 1.0), IntensitySeries([first, third]))


def test_without_readings_nothing_is_settled() -> None:
    assert not is_settled(Used(second(0), second(9), 1.0), IntensitySeries())


@pytest.mark.parametrize(
    ("ours_kwh", "tracker_kwh", "difference"),
    [(1.0, 1.0, 0.0), (0.95, 1.0, -0.05), (1.0, 0.9, 0.1), (1.0, 0.0, 1.0), (0.0, 1.0, -1.0), (1.0, None, None)],
)
def test_the_difference_to_the_tracker_is_a_share_of_the_larger_total(
    ours_kwh: float, tracker_kwh: float | None, difference: float | None
) -> None:
    assert tracker_difference(ours_kwh, tracker_kwh) == (
        None if difference is None else pytest.approx(difference, abs=1e-12)
    )
    assert TRACKER_TOLERANCE == 0.05


def test_two_totals_of_0_are_not_compared() -> None:
    assert tracker_difference(0.0, 0.0) is None


def test_an_impossible_total_is_refused() -> None:
    with pytest.raises(ValueError, match="tracker_kwh is -1"):
        tracker_difference(1.0, -1.0)
    with pytest.raises(ValueError, match="ours_kwh is nan"):
        tracker_difference(float("nan"), None)


def test_a_metered_run_across_a_step_of_intensity_emits_the_integral() -> None:
    power_w, pue, taken = 50.0, 1.2, list[EnergyInterval]()
    with EnergyMeter(taken.append, interval_seconds=0.7, cpu_power_w=40.0, ram_power_w=10.0):
        time.sleep(6)
    begin, end = taken[0].start, taken[-1].end
    step = begin + timedelta(seconds=2.6)
    series = IntensitySeries(
        Reading(zone="ES", start=start, end=until, gco2e_per_kwh=value, source="test", fetched_at=NOON)
        for start, until, value in (
            (begin - timedelta(hours=1), step, 100.0),
            (step, step + timedelta(hours=1), 1000.0),
        )
    )
    emitted = sum(
        piece.emissions_gco2e or 0.0 for interval in taken for piece in price_by_reading(interval, series, pue=pue)
    )
    before, after = (step - begin).total_seconds(), (end - step).total_seconds()
    assert after == pytest.approx(3.4, abs=0.5)
    expected = power_w / 3.6e6 * pue * (100 * before + 1000 * after)
    assert emitted == pytest.approx(expected, rel=0.005)
