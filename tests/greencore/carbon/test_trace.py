from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.carbon import InvalidSpec, NoReading, Source, open_source

ANCHOR = datetime(2026, 11, 23, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hour h of 1 January 2022 has an intensity of 100 + h, and hour 13 is missing."""
    file = tmp_path_factory.mktemp("traces") / "day.csv"
    rows = [f"2022-01-01T{hour:02}:00:00,{100 + hour}" for hour in range(24) if hour != 13]
    file.write_text("\n".join(["# label: synthetic", "datetime,gco2e_per_kwh", *rows]), encoding="utf-8")
    return file


def replay(day: Path, seconds: float, speed: str = "480") -> Source:
    """The day, `seconds` of wall time after its anchor; at 480 times its speed it takes 180 s."""
    options = f"speed={speed}&anchor=2026-11-23T10:00:00Z"
    return open_source(f"trace:{day}?{options}", "ES", clock=lambda: ANCHOR + timedelta(seconds=seconds))


def test_without_an_anchor_the_times_of_the_trace_are_used(day: Path) -> None:
    now = datetime(2022, 1, 1, 5, 30, tzinfo=UTC)
    source = open_source(f"trace:{day}", "ES", clock=lambda: now)
    reading = source.latest()
    assert (reading.start, reading.gco2e_per_kwh) == (datetime(2022, 1, 1, 5, tzinfo=UTC), 105)
    assert (reading.zone, reading.source, reading.estimated) == ("ES", "trace (synthetic)", False)
    assert [reading.gco2e_per_kwh for reading in source.forecast(2)] == [105, 106, 107]
    assert len(source.forecast(1000)) == 18
    assert [reading.gco2e_per_kwh for reading in source.history(now - timedelta(hours=99), now)] == [
        100, 101, 102, 103, 104, 105,
    ]  # fmt: skip
    assert len(source.history(now + timedelta(days=9), now + timedelta(days=10))) == 0


@pytest.mark.parametrize("now", [ANCHOR, datetime(2021, 12, 31, 23, tzinfo=UTC), datetime(2022, 1, 2, tzinfo=UTC)])
def test_a_trace_of_another_time_asks_for_an_anchor(day: Path, now: datetime) -> None:
    source = open_source(f"trace:{day}", "ES", clock=lambda: now)
    with pytest.raises(NoReading, match=r"runs from 2022-01-01T00:00:00.*give trace an anchor"):
        source.latest()


@pytest.mark.parametrize(
    ("seconds", "gco2e_per_kwh"),
    [
        (0, 100),
        (7.4, 100),
        (7.5, 101),
        (100, 112),
        (179.9, 123),
        (180, 100),
        (187.5, 101),
        (-0.1, 123),
        (1800, 100),
    ],
)
def test_an_accelerated_trace_repeats_in_wall_time(day: Path, seconds: float, gco2e_per_kwh: float) -> None:
    reading = replay(day, seconds).latest()
    assert reading.gco2e_per_kwh == gco2e_per_kwh


def test_an_hour_becomes_seven_and_a_half_seconds_at_480_times_the_speed(day: Path) -> None:
    reading = replay(day, 16).latest()
    assert reading.start == ANCHOR + timedelta(seconds=15)
    assert reading.end == ANCHOR + timedelta(seconds=22.5)
    assert reading.fetched_at == ANCHOR + timedelta(seconds=16)


def test_within_a_gap_of_the_trace_the_latest_is_the_reading_before_it(day: Path) -> None:
    source = replay(day, 13.5 * 7.5)
    assert source.latest().gco2e_per_kwh == 112
    now = ANCHOR + timedelta(seconds=13.5 * 7.5)
    assert source.forecast(1 / 3600).at(now) is None


def test_the_forecast_equals_the_later_readings(day: Path) -> None:
    forecast = replay(day, 3).forecast(hours=0.2)
    for seconds in range(4, 720, 11):
        foreseen = forecast.latest_at(ANCHOR + timedelta(seconds=seconds))
        come = replay(day, seconds).latest()
        assert foreseen is not None
        assert (foreseen.start, foreseen.gco2e_per_kwh) == (come.start, come.gco2e_per_kwh)


def test_the_mean_over_whole_cycles_is_that_of_the_trace(day: Path) -> None:
    source = replay(day, 0)
    start, end = ANCHOR - timedelta(seconds=360), ANCHOR + timedelta(seconds=540)
    mean = source.history(start, end).mean(start, end)
    hours = [100 + (hour if hour != 13 else 12) for hour in range(24)]
    assert mean.gco2e_per_kwh == pytest.approx(sum(hours) / 24)
    assert mean.covered_share == pytest.approx(23 / 24)


@given(
    speed=st.floats(0.01, 100_000),
    start=st.floats(-1e6, 1e6),
    length=st.floats(0.001, 1),
)
def test_at_any_speed_readings_follow_each_other_without_overlap(
    day: Path, speed: float, start: float, length: float
) -> None:
    source = replay(day, start, speed=repr(speed))
    begin = ANCHOR + timedelta(seconds=start)
    end = begin + timedelta(seconds=length * 86_400 * 2 / speed)
    readings = source.history(begin, end).readings
    for earlier, later in pairwise(readings):
        gap = earlier.gco2e_per_kwh == 112
        assert (later.start > earlier.end) if gap else (later.start == earlier.end)
    if readings:
        assert readings[0].end > begin
        assert readings[-1].start < end
    latest = source.latest()
    assert latest.start <= begin
    assert latest.end > begin or latest.gco2e_per_kwh == 112


@pytest.mark.parametrize("anchor", ["2026-11-23T10:00:00+00:00", "2026-11-23T10:00", "2026-11-23T11:00:00+01:00"])
def test_an_anchor_may_have_an_offset_and_is_in_utc_without(day: Path, anchor: str) -> None:
    source = open_source(f"trace:{day}?anchor={anchor}", "ES", clock=lambda: ANCHOR + timedelta(hours=2.5))
    assert source.latest().gco2e_per_kwh == 102
    assert source.latest().start == ANCHOR + timedelta(hours=2)


def test_a_trace_without_a_label_is_named_trace_alone(tmp_path: Path) -> None:
    file = tmp_path / "plain.csv"
    file.write_text("datetime,gco2e_per_kwh\n2026-11-23T10:00,1\n2026-11-23T11:00,2\n", encoding="utf-8")
    assert open_source(f"trace:{file}", "ES", clock=lambda: ANCHOR).latest().source == "trace"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("pace=2", "trace has no option 'pace': expected speed or anchor"),
        ("speed=0&anchor=2026-11-23", "the option speed=0 of trace is not a speed"),
        ("speed=-3&anchor=2026-11-23", "the option speed=-3 of trace"),
        ("speed=inf&anchor=2026-11-23", "the option speed=inf of trace"),
        ("speed=&anchor=2026-11-23", "the option 'speed' of trace is empty"),
        ("speed=fast&anchor=2026-11-23", "the option speed=fast of trace"),
        ("speed=480", "the option speed=480 of trace needs an anchor"),
        ("anchor=noon", "the option anchor=noon of trace is not a time"),
        ("anchor=2026-11-23&anchor=2026-11-24", "the option 'anchor' of trace is given twice"),
        ("speed=9e6&anchor=2026-11-23", "makes readings shorter than 1 ms: expected at most 3.6e"),
    ],
)
def test_a_wrong_option_is_named(day: Path, options: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        open_source(f"trace:{day}?{options}", "ES")


@pytest.mark.parametrize("spec", ["trace", "trace:", "trace:?speed=2"])
def test_a_trace_needs_a_file(spec: str) -> None:
    with pytest.raises(InvalidSpec, match="trace names no file: expected trace:FILE"):
        open_source(spec, "ES")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("gco2e_per_kwh", "lifecycle"),
        ("Carbon Intensity gCO₂eq/kWh (direct)", "direct"),
        ("Carbon Intensity gCO₂eq/kWh (LCA)", "lifecycle"),
    ],
)
def test_readings_have_the_emission_factors_of_their_column(tmp_path: Path, column: str, expected: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(f"datetime,{column}\n2026-01-01T00:00Z,100\n2026-01-01T01:00Z,110\n")
    source = open_source(f"trace:{file}", "X", clock=lambda: datetime(2026, 1, 1, 0, 30, tzinfo=UTC))
    assert source.latest().emission_factors == expected
