"""Behaviour that all providers share."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from greencore.carbon import IntensitySeries, NoReading, UnknownZone
from tests.carbon_provider_server import ManualClock, ProviderServer, Row, rows
from tests.greencore.carbon.providers.conftest import NOON, Opened, each_provider

HALF_HOUR = timedelta(minutes=30)


def values(series: IntensitySeries) -> list[float]:
    return [round(reading.gco2e_per_kwh, 6) for reading in series]


@each_provider
def test_the_latest_reading_covers_the_current_time_and_names_its_source(opened: Opened, provider: str) -> None:
    reading = opened(provider).latest()
    assert reading.start == NOON
    assert reading.gco2e_per_kwh == pytest.approx(112)
    assert reading.end in (NOON + HALF_HOUR, NOON + 2 * HALF_HOUR)
    assert (reading.zone, reading.source, reading.fetched_at) == ("Z", provider, NOON + timedelta(minutes=10))


@pytest.mark.parametrize(
    ("provider", "signal", "emission_factors", "latest_estimated"),
    [
        ("uk", "average", "direct", False),
        ("electricity-maps", "average", "lifecycle", False),
        ("watttime", "marginal", "direct", True),
        ("energy-charts", "average", "lifecycle", False),
        ("carbon-aware-sdk", "average", "lifecycle", False),
    ],
)
def test_readings_have_a_basis_and_say_whether_they_are_measured(
    opened: Opened, provider: str, signal: str, emission_factors: str, latest_estimated: bool
) -> None:
    source = opened(provider)
    reading = source.latest()
    assert (source.signal, reading.signal, reading.emission_factors) == (signal, signal, emission_factors)
    assert reading.estimated is latest_estimated
    assert all(reading.estimated for reading in source.forecast(24) if reading.start > NOON)
    assert not any(reading.estimated for reading in source.history(NOON - timedelta(hours=6), NOON))


@each_provider
def test_a_forecast_covers_exactly_the_requested_hours(opened: Opened, provider: str) -> None:
    source, now = opened(provider), NOON + timedelta(minutes=10)
    for hours in (2, 20, 0.25):
        series = source.forecast(hours)
        assert series.readings[0].start == NOON
        assert series.readings[-1].start < now + timedelta(hours=hours) <= series.readings[-1].end
        assert all(later.start == earlier.end for earlier, later in pairwise(series))
        assert all(round(reading.gco2e_per_kwh) == 100 + reading.start.hour for reading in series)


@each_provider
def test_a_forecast_that_ends_early_is_returned_as_it_is(opened: Opened, server: ProviderServer, provider: str) -> None:
    server.rows = [row for row in server.rows if row.end <= NOON + timedelta(hours=5)]
    series = opened(provider).forecast(24)
    assert series.readings[-1].end == NOON + timedelta(hours=5)


@each_provider
def test_a_forecast_beyond_the_horizon_is_not_an_error(opened: Opened, provider: str) -> None:
    assert len(opened(provider).forecast(500)) >= 48


@each_provider
def test_history_is_every_reading_that_touches_the_window(opened: Opened, provider: str) -> None:
    start = NOON - timedelta(hours=30, minutes=10)
    series = opened(provider).history(start, start + timedelta(hours=3))
    assert series.readings[0].start == NOON - timedelta(hours=30, minutes=30)
    assert values(series) == [105, 106, 106, 107, 107, 108, 108]


@each_provider
def test_history_ends_at_the_current_time(opened: Opened, server: ProviderServer, provider: str) -> None:
    source = opened(provider)
    assert source.history(NOON, NOON + timedelta(hours=40)).readings[-1].start == NOON
    asked = len(server.log)
    assert len(source.history(NOON + timedelta(days=1), NOON + timedelta(days=2))) == 0
    assert len(source.history(NOON, NOON)) == 0
    assert len(server.log) == asked


@each_provider
def test_a_long_history_is_requested_in_parts_without_gaps(
    opened: Opened, server: ProviderServer, provider: str
) -> None:
    start = NOON - timedelta(days=70)
    server.rows = rows(start, hours=70 * 24, measured_until=NOON, value=lambda time: 100.0 + time.day)
    series = opened(provider).history(start, NOON)
    assert len(series) == 70 * 48
    assert all(later.start == earlier.end for earlier, later in pairwise(series))
    assert len(server.log) >= 3


@each_provider
def test_an_unknown_zone_is_named(opened: Opened, server: ProviderServer, provider: str) -> None:
    options = {"region": "13"} if provider == "uk" else {}
    server.zones.clear()
    source = opened(provider, **options)
    for ask in (source.latest, lambda: source.forecast(3), lambda: source.history(NOON - 9 * HALF_HOUR, NOON)):
        with pytest.raises(UnknownZone, match="unknown zone 'Z'"):
            ask()


@each_provider
def test_a_provider_without_data_gives_no_reading_and_empty_series(
    opened: Opened, server: ProviderServer, provider: str
) -> None:
    server.rows = []
    source = opened(provider)
    with pytest.raises(NoReading, match=f"{provider} has no reading of Z that has begun by 2026-11-24T12:10"):
        source.latest()
    assert len(source.forecast(24)) == 0
    assert len(source.history(NOON - timedelta(days=3), NOON)) == 0


@each_provider
def test_null_values_leave_gaps(opened: Opened, server: ProviderServer, provider: str) -> None:
    nulls = {NOON + 4 * HALF_HOUR, NOON + 5 * HALF_HOUR, NOON - 6 * HALF_HOUR}
    server.rows = [Row(row.start, row.end) if row.start in nulls else row for row in server.rows]
    source = opened(provider)
    ahead = source.forecast(6)
    assert ahead.at(NOON + 4 * HALF_HOUR) is None
    assert ahead.at(NOON + 5 * HALF_HOUR) is None
    assert ahead.at(NOON + 6 * HALF_HOUR) is not None
    assert source.history(NOON - timedelta(hours=8), NOON).at(NOON - 6 * HALF_HOUR) is None


@each_provider
def test_absurd_and_negative_values_are_dropped_and_counted_in_the_log(
    opened: Opened, server: ProviderServer, provider: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = {1: -5.0, 2: 1e9, 3: float("nan"), 4: 5001.0}
    server.rows = [
        Row(row.start, row.end, wrong.get(int((row.start - NOON) / HALF_HOUR), row.forecast), None)
        for row in server.rows
        if row.start >= NOON
    ]
    series = opened(provider).forecast(3)
    assert values(series) == [112, 114, 115]
    assert f"carbon_values_dropped source={provider} zone=Z absurd=2 negative=1 not_a_number=1" in caplog.text


@each_provider
def test_gaps_of_hours_stay_gaps(opened: Opened, server: ProviderServer, provider: str) -> None:
    server.rows = [row for row in server.rows if not NOON - timedelta(hours=9) <= row.start < NOON - timedelta(hours=4)]
    series = opened(provider).history(NOON - timedelta(hours=20), NOON)
    assert series.at(NOON - timedelta(hours=9, minutes=1)) is not None
    assert series.at(NOON - timedelta(hours=9)) is None
    assert series.at(NOON - timedelta(hours=4, minutes=1)) is None
    assert series.at(NOON - timedelta(hours=4)) is not None


@each_provider
def test_duplicates_are_merged_and_a_measurement_is_not_replaced(
    opened: Opened, server: ProviderServer, provider: str
) -> None:
    at = NOON - 4 * HALF_HOUR
    server.rows += [Row(at, at + HALF_HOUR, 500.0, 501.0), Row(at, at + HALF_HOUR, 600.0, None)]
    series = opened(provider).history(at, at + HALF_HOUR)
    # The histories of WattTime and the Carbon Aware SDK do not mark estimates: the last value is kept.
    assert values(series) == [600.0 if provider in ("watttime", "carbon-aware-sdk") else 501.0]


@each_provider
def test_a_change_of_resolution_leaves_neither_gap_nor_overlap(
    opened: Opened, server: ProviderServer, provider: str
) -> None:
    start = NOON - timedelta(hours=24)
    coarse = rows(start, hours=12, measured_until=NOON, value=lambda time: 50.0, step=timedelta(hours=1))
    fine = rows(
        start + timedelta(hours=12), hours=12, measured_until=NOON, value=lambda time: 90.0, step=timedelta(minutes=15)
    )
    server.rows = coarse + fine
    # WattTime's meta has one length for all points.
    period = {"data_point_period_seconds": 3600}
    server.edit = lambda path, answer: answer | {"meta": answer["meta"] | period} if "historical" in path else answer
    series = opened(provider).history(start, NOON)
    assert len(series) == 12 + 48
    assert all(later.start == earlier.end for earlier, later in pairwise(series))
    assert series.mean(start, NOON).gco2e_per_kwh == pytest.approx(70)


@each_provider
@pytest.mark.parametrize(
    ("day", "hours"),
    [(datetime(2026, 3, 28, 23, tzinfo=UTC), 23), (datetime(2026, 10, 24, 22, tzinfo=UTC), 25)],
)
def test_a_day_of_23_or_25_local_hours_is_whole(
    opened: Opened, server: ProviderServer, clock: ManualClock, provider: str, day: datetime, hours: int
) -> None:
    clock.now = day + timedelta(hours=hours + 5)
    server.rows = rows(
        day - timedelta(days=1), hours=72, measured_until=clock.now, value=lambda time: 100.0 + time.hour
    )
    series = opened(provider).history(day, day + timedelta(hours=hours))
    assert len(series) == 2 * hours
    assert series.mean(day, day + timedelta(hours=hours)).covered_share == 1
    assert all(reading.gco2e_per_kwh == pytest.approx(100 + reading.start.hour) for reading in series)


@each_provider
def test_with_a_slow_clock_the_latest_reading_is_one_that_has_begun(
    opened: Opened, server: ProviderServer, clock: ManualClock, provider: str
) -> None:
    server.clock = lambda: clock.now + timedelta(hours=1)
    source = opened(provider)
    if provider in ("energy-charts", "carbon-aware-sdk"):
        assert source.latest().start == NOON
    else:
        with pytest.raises(NoReading, match="that has begun"):
            source.latest()


@each_provider
def test_a_byte_order_mark_is_ignored(opened: Opened, server: ProviderServer, provider: str) -> None:
    server.prefix = b"\xef\xbb\xbf"
    assert opened(provider).latest().start == NOON


@each_provider
def test_the_latest_reading_is_reused_until_its_interval_ends(
    opened: Opened, server: ProviderServer, clock: ManualClock, provider: str
) -> None:
    source = opened(provider)
    first = source.latest()
    asked = len(server.log)
    clock.now = first.end - timedelta(seconds=1)
    assert source.latest() == first
    assert len(server.log) == asked
    clock.now = first.end + timedelta(seconds=1)
    assert source.latest().start == first.end
    assert len(server.log) == asked + 1


@each_provider
def test_a_forecast_is_reused_and_cut_to_the_request(
    opened: Opened, server: ProviderServer, clock: ManualClock, provider: str
) -> None:
    source = opened(provider)
    source.forecast(24)
    asked = len(server.log)
    clock.advance(minutes=4, seconds=59)
    assert len(source.forecast(3)) == 7
    assert len(server.log) == asked
    clock.advance(minutes=30)
    assert source.forecast(3).readings[0].start == NOON + HALF_HOUR
    assert len(server.log) == asked + 1


@each_provider
def test_invalid_arguments_are_refused_without_a_request(opened: Opened, server: ProviderServer, provider: str) -> None:
    source = opened(provider)
    for hours in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a finite number greater than 0"):
            source.forecast(hours)
    with pytest.raises(ValueError, match="expected an aware time"):
        source.history(NOON.replace(tzinfo=None), NOON)
    with pytest.raises(ValueError, match="before its start"):
        source.history(NOON, NOON - HALF_HOUR)
    assert server.log == []
