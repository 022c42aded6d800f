from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.carbon import IntensitySeries, InvalidReading, NoReading, Reading
from greencore.carbon.series import merge_readings

MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)


def at(hours: float) -> datetime:
    return MIDNIGHT + timedelta(hours=hours)


def reading(start: float, end: float, gco2e_per_kwh: float, **fields: Any) -> Reading:
    given_fields: dict[str, Any] = {
        "zone": "ES",
        "start": at(start),
        "end": at(end),
        "gco2e_per_kwh": gco2e_per_kwh,
        "source": "test",
        "fetched_at": at(0),
    }
    return Reading(**(given_fields | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"zone": ""}, "zone is empty"),
        ({"start": MIDNIGHT.replace(tzinfo=None)}, "start is 2026-11-23T00:00:00: expected an aware time"),
        ({"end": at(1).astimezone(timezone(timedelta(hours=1)))}, r"end is .*\+01:00: expected .* UTC"),
        ({"fetched_at": MIDNIGHT.replace(tzinfo=None)}, "fetched_at is"),
        ({"end": MIDNIGHT}, "expected start before end"),
        ({"gco2e_per_kwh": -0.1}, "gco2e_per_kwh is -0.1"),
        ({"gco2e_per_kwh": float("nan")}, "gco2e_per_kwh is nan"),
        ({"gco2e_per_kwh": float("inf")}, "gco2e_per_kwh is inf"),
        ({"signal": "middling"}, "signal is 'middling': expected one of average, marginal"),
    ],
)
def test_an_impossible_reading_is_refused_with_the_field_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidReading, match=message):
        replace(reading(0, 1, 100), **fields)


def test_a_reading_of_zero_is_a_reading() -> None:
    assert reading(0, 1, 0).gco2e_per_kwh == 0


def test_age_counts_from_the_start_of_the_interval_and_is_never_negative() -> None:
    assert reading(1, 2, 100).age_seconds(at(1.5)) == 1800
    assert reading(1, 2, 100).age_seconds(at(0)) == 0


def test_readings_are_sorted_whatever_their_order() -> None:
    late, early = reading(1, 2, 20), reading(0, 1, 10)
    assert IntensitySeries([late, early]).readings == (early, late)


def test_overlapping_readings_are_refused() -> None:
    with pytest.raises(InvalidReading, match="begins before the one from"):
        IntensitySeries([reading(0, 2, 10), reading(1, 3, 20)])


def test_zones_are_never_mixed() -> None:
    with pytest.raises(InvalidReading, match="zones ES, FR are mixed"):
        IntensitySeries([reading(0, 1, 10), reading(1, 2, 20, zone="FR")])


@pytest.mark.fault(number=16)
def test_direct_and_life_cycle_figures_are_never_mixed() -> None:
    with pytest.raises(InvalidReading, match="emission factors direct, lifecycle are mixed"):
        IntensitySeries([reading(0, 1, 10), reading(1, 2, 20, emission_factors="direct")])


def test_average_and_marginal_readings_are_never_mixed() -> None:
    with pytest.raises(InvalidReading, match="signals average, marginal are mixed"):
        IntensitySeries([reading(0, 1, 10), reading(1, 2, 20, signal="marginal")])


def test_a_reading_covers_its_start_but_not_its_end() -> None:
    series = IntensitySeries([reading(0, 1, 10), reading(1, 2, 20)])
    assert series.at(at(1)) == series.readings[1]
    assert series.at(at(2)) is None
    assert series.at(at(-0.1)) is None


def test_latest_in_a_gap_is_the_reading_before_it() -> None:
    series = IntensitySeries([reading(0, 1, 10), reading(3, 4, 20)])
    assert series.latest_at(at(2)) == series.readings[0]
    assert series.latest_at(at(3)) == series.readings[1]
    assert series.latest_at(at(99)) == series.readings[1]
    assert series.latest_at(at(-1)) is None


def test_an_empty_series_has_no_reading_and_no_mean() -> None:
    empty = IntensitySeries()
    assert empty.at(at(0)) is None
    assert empty.latest_at(at(0)) is None
    with pytest.raises(NoReading, match="empty series"):
        empty.mean(at(0), at(1))


def test_the_mean_weighs_each_reading_by_its_time() -> None:
    series = IntensitySeries([reading(0, 1, 100, source="a"), reading(1, 2, 400, source="b")])
    mean = series.mean(at(0.75), at(1.75))
    assert mean.gco2e_per_kwh == pytest.approx(0.25 * 100 + 0.75 * 400)
    assert (mean.covered_share, mean.estimated, mean.sources) == (1.0, False, ("a", "b"))


def test_an_uncovered_part_is_priced_with_the_reading_before_it_and_marked() -> None:
    series = IntensitySeries([reading(0, 1, 100), reading(3, 4, 400)])
    mean = series.mean(at(0.5), at(3.5))
    assert mean.gco2e_per_kwh == pytest.approx((2.5 * 100 + 0.5 * 400) / 3)
    assert mean.covered_share == pytest.approx(1 / 3)
    assert mean.estimated


def test_a_part_before_the_first_reading_is_priced_with_that_one() -> None:
    mean = IntensitySeries([reading(2, 3, 70)]).mean(at(0), at(1))
    assert (mean.gco2e_per_kwh, mean.covered_share, mean.estimated) == (70, 0.0, True)


def test_a_part_after_the_last_reading_is_priced_with_that_one() -> None:
    mean = IntensitySeries([reading(0, 1, 10), reading(1, 2, 70)]).mean(at(5), at(6))
    assert (mean.gco2e_per_kwh, mean.covered_share, mean.estimated) == (70, 0.0, True)


def test_an_estimated_reading_makes_the_mean_estimated_only_where_it_is_used() -> None:
    series = IntensitySeries([reading(0, 1, 10), reading(1, 2, 20, estimated=True)])
    assert not series.mean(at(0), at(1)).estimated
    assert series.mean(at(0), at(1.1)).estimated


@pytest.mark.parametrize(("hour", "value", "covered"), [(0.5, 10, 1.0), (1, 20, 1.0), (2, 20, 0.0), (-1, 10, 0.0)])
def test_an_interval_of_no_length_takes_the_intensity_of_its_instant(hour: float, value: float, covered: float) -> None:
    mean = IntensitySeries([reading(0, 1, 10), reading(1, 2, 20)]).mean(at(hour), at(hour))
    assert (mean.gco2e_per_kwh, mean.covered_share, mean.estimated) == (value, covered, covered == 0)


def test_a_backward_or_naive_interval_is_refused() -> None:
    series = IntensitySeries([reading(0, 1, 10)])
    with pytest.raises(ValueError, match="before its start"):
        series.mean(at(1), at(0))
    with pytest.raises(ValueError, match="expected an aware time"):
        series.mean(MIDNIGHT.replace(tzinfo=None), at(1))


@given(
    values=st.lists(st.none() | st.integers(0, 900), min_size=1, max_size=12).filter(any),
    start=st.integers(-3, 14),
    length=st.integers(1, 10),
)
def test_the_mean_equals_an_hour_by_hour_sum(values: list[int | None], start: int, length: int) -> None:
    known = {hour: value for hour, value in enumerate(values) if value is not None}
    series = IntensitySeries(reading(hour, hour + 1, value) for hour, value in known.items())
    hours = range(start, start + length)
    expected = 0.0
    for hour in hours:
        earlier = [known_hour for known_hour in known if known_hour <= hour]
        expected += known[max(earlier) if earlier else min(known)] / length

    mean = series.mean(at(start), at(start + length))

    assert mean.gco2e_per_kwh == pytest.approx(expected)
    assert mean.covered_share == pytest.approx(sum(hour in known for hour in hours) / length)
    assert mean.estimated == any(hour not in known for hour in hours)


def test_readings_without_overlap_are_merged_unchanged() -> None:
    readings = [reading(0, 1, 100), reading(2, 3, 200)]
    assert merge_readings(reversed(readings)).readings == tuple(readings)


def test_a_measured_value_has_precedence_over_a_later_estimate() -> None:
    measured = reading(0, 1, 100)
    assert merge_readings([measured, reading(0, 1, 150, estimated=True, fetched_at=at(5))]).readings == (measured,)


def test_of_two_measurements_the_later_fetched_is_kept() -> None:
    later = reading(0, 1, 110, fetched_at=at(2))
    assert merge_readings([later, reading(0, 1, 100, fetched_at=at(1))]).readings == (later,)


def test_a_finer_resolution_cuts_the_coarser_one() -> None:
    found = merge_readings([reading(0, 2, 100), reading(0.5, 1, 50)])
    assert found.readings == (reading(0, 0.5, 100), reading(0.5, 1, 50), reading(1, 2, 100))


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(1, 6), st.integers(0, 500), st.booleans(), st.integers(0, 3)),
        max_size=12,
    )
)
def test_every_moment_has_the_reading_of_the_highest_rank(rows: list[tuple[int, int, int, bool, int]]) -> None:
    readings = [reading(b, b + n, value, estimated=e, fetched_at=at(f)) for b, n, value, e, f in rows]
    found = merge_readings(readings)
    for half_hour in range(38):
        time = at(half_hour / 2)
        over = [r for r in readings if r.start <= time < r.end]
        best = max(((not r.estimated, r.fetched_at, r.start) for r in over), default=None)
        merged = found.at(time)
        if best is None:
            assert merged is None
        else:
            assert merged is not None
            candidates = {r.gco2e_per_kwh for r in over if (not r.estimated, r.fetched_at, r.start) == best}
            assert merged.gco2e_per_kwh in candidates
