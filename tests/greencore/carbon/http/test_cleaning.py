import logging
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.carbon.http.cleaning import DataPoint, clean_points
from greencore.carbon.series import Basis, IntensitySeries, Reading

START = datetime(2026, 11, 24, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DIRECT = Basis("average", "direct")


def cleaned(*points: DataPoint, usual: timedelta = 30 * MINUTE) -> list[Reading]:
    series = clean_points(points, zone="Z", source="some provider", basis=DIRECT, usual=usual, fetched_at=START)
    return list(series)


def at(minute: float, value: float | None = 100.0, *, lasts: float | None = None, estimated: bool = False) -> DataPoint:
    start = START + minute * MINUTE
    return DataPoint(start, None if lasts is None else start + lasts * MINUTE, value, estimated)


def spans(readings: list[Reading]) -> list[tuple[float, float]]:
    return [((reading.start - START) / MINUTE, (reading.end - START) / MINUTE) for reading in readings]


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        ([0], [(0, 30)]),
        ([0, 60, 120], [(0, 60), (60, 120), (120, 180)]),
        ([0, 15, 30, 60, 75], [(0, 15), (15, 30), (30, 45), (60, 75), (75, 90)]),
        # Gaps of hours are not filled.
        ([0, 60, 300, 360], [(0, 60), (60, 120), (300, 360), (360, 420)]),
        ([0, 240, 300], [(0, 60), (240, 300), (300, 360)]),
        ([0, 1440], [(0, 30), (1440, 1470)]),
        # Hourly, then quarter-hourly, and the other way round.
        ([0, 60, 120, 135, 150], [(0, 60), (60, 120), (120, 135), (135, 150), (150, 165)]),
        ([0, 15, 30, 90, 150], [(0, 15), (15, 30), (30, 90), (90, 150), (150, 210)]),
    ],
)
def test_the_spacing_determines_the_length_of_a_reading(
    minutes: list[float], expected: list[tuple[float, float]]
) -> None:
    assert spans(cleaned(*(at(minute) for minute in minutes))) == expected


def test_a_point_without_a_value_ends_the_one_before_it() -> None:
    assert spans(cleaned(at(0), at(15), at(30, None), at(45, None), at(60))) == [(0, 15), (15, 30), (60, 75)]


def test_of_two_points_with_one_start_the_later_is_kept_but_no_estimate_replaces_a_measurement() -> None:
    def value(*points: DataPoint) -> float:
        (reading,) = cleaned(*points)
        return reading.gco2e_per_kwh

    assert value(at(0, 1), at(0, 2)) == 2
    assert value(at(0, 1, estimated=True), at(0, 2, estimated=True)) == 2
    assert value(at(0, 1, estimated=True), at(0, 2)) == 2
    assert value(at(0, 1), at(0, 2, estimated=True)) == 1
    assert value(at(0, 1), at(0, None)) == 1
    assert value(at(0, 1), at(0, -2)) == 1


def test_overlaps_are_cut_in_favour_of_measurements() -> None:
    assert spans(cleaned(at(0, lasts=60), at(30, lasts=60))) == [(0, 30), (30, 90)]
    assert spans(cleaned(at(0, lasts=60), at(30, lasts=60, estimated=True))) == [(0, 60), (60, 90)]
    assert spans(cleaned(at(0, lasts=60), at(15, lasts=15, estimated=True))) == [(0, 60)]
    assert spans(cleaned(at(0, lasts=60, estimated=True), at(30, lasts=60))) == [(0, 30), (30, 90)]
    assert spans(cleaned(at(0, lasts=60), at(15, lasts=15))) == [(0, 15), (15, 30), (30, 60)]
    # The estimate behind the first measurement is replaced by the second.
    assert spans(cleaned(at(0, lasts=60), at(15, lasts=60, estimated=True), at(30, lasts=60))) == [(0, 30), (30, 90)]


def test_invalid_values_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    points = [
        at(0, -0.1), at(60, 5000.1), at(120, float("inf")), at(180, float("nan")), at(240, lasts=0),
        at(300, lasts=-5), at(360, lasts=24 * 60 + 1), at(420, None), at(480, 5000, lasts=30), at(540, 0, lasts=30),
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING):
        readings = cleaned(*points)
    assert [reading.gco2e_per_kwh for reading in readings] == [5000, 0]
    assert [record.message for record in caplog.records] == [
        "carbon_values_dropped source=some provider zone=Z absurd=1 negative=1 no_length=2 not_a_number=2 too_long=1"
    ]


def test_a_valid_response_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert len(cleaned(at(0), at(30, None), at(60))) == 2
    assert cleaned() == []
    assert caplog.records == []


points = st.builds(
    at,
    st.integers(0, 40).map(lambda step: step * 15),
    st.one_of(st.none(), st.floats(0, 900), st.floats(-10, -1)),
    lasts=st.one_of(st.none(), st.sampled_from([5, 15, 30, 60, 120])),
    estimated=st.booleans(),
)


@given(st.lists(points, max_size=30))
def test_any_points_become_a_series_that_prefers_measurements(given_points: list[DataPoint]) -> None:
    series = IntensitySeries(cleaned(*given_points))
    assert all(earlier.end <= later.start for earlier, later in pairwise(series))
    usable = [point for point in given_points if point.gco2e_per_kwh is not None and point.gco2e_per_kwh >= 0]
    assert {reading.gco2e_per_kwh for reading in series} <= {point.gco2e_per_kwh for point in usable}
    for point in usable:
        if not point.estimated:
            covering = series.at(point.start)
            assert covering is not None
            assert not covering.estimated
    # Minute by minute: the series has the value of a point with a known length and no other point near.
    for minute in range(0, 40 * 15, 5):
        time = START + minute * MINUTE
        near = [point for point in given_points if abs(point.start - time) <= 120 * MINUTE]
        if len(near) == 1 and near[0] in usable and near[0].end is not None:
            covering = series.at(time)
            expected = near[0].start <= time < near[0].end
            assert (covering is not None and covering.gco2e_per_kwh == near[0].gco2e_per_kwh) is expected
