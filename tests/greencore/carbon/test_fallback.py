from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.carbon import Basis, IntensitySeries, InvalidReading, Reading
from greencore.carbon.fallback import FALLBACK_STEPS, IntensitySnapshot, ResolvedIntensity
from greencore.carbon.static import StaticMean

MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)
EMPTY = IntensitySeries()
AVERAGE = Basis("average")
MARGINAL = Basis("marginal")


@dataclass(frozen=True)
class FixedMean(StaticMean):
    """A yearly mean with the given intensity and source."""

    mean: Reading | None = None

    def reading(self, zone: str, at: datetime) -> Reading:
        assert self.mean is not None
        return replace(self.mean, zone=zone)


@dataclass(frozen=True)
class Chain:
    """A snapshot, and what its fallback chain uses besides."""

    known: IntensitySnapshot
    static: StaticMean | None
    stale_limit: timedelta

    def resolve(self, time: datetime) -> ResolvedIntensity | None:
        return self.known.resolve_intensity(time, stale_limit=self.stale_limit, static=self.static)

    def fill(self, start: datetime, end: datetime) -> IntensitySeries:
        return self.known.series_with_fallback(start, end, stale_limit=self.stale_limit, static=self.static)


def at(hours: float) -> datetime:
    return MIDNIGHT + timedelta(hours=hours)


def reading(start: float, value: float, *, hours: float = 1, **fields: Any) -> Reading:
    given_fields: dict[str, Any] = {
        "zone": "ES",
        "start": at(start),
        "end": at(start + hours),
        "gco2e_per_kwh": value,
        "source": "uk",
        "fetched_at": at(start),
    }
    return Reading(**(given_fields | fields))


def chain(
    *readings: Reading,
    forecast: IntensitySeries = EMPTY,
    static: Reading | None = None,
    stale_hours: float = 2,
    basis: Basis = AVERAGE,
) -> Chain:
    known = IntensitySnapshot("ES", basis, IntensitySeries(readings), forecast)
    return Chain(known, None if static is None else FixedMean(mean=static), timedelta(hours=stale_hours))


EXPECTED = reading(200, 30, source="own forecast", estimated=True)
MEAN = reading(0, 60, source="static", estimated=True)


@pytest.mark.parametrize(
    ("known", "step", "value"),
    [
        ((reading(200, 10), reading(198.5, 20), reading(176, 40), reading(32, 50)), "fresh", 10),
        ((reading(198.5, 20), reading(176, 40), reading(32, 50)), "forecast", 30),
        ((reading(176, 40), reading(32, 50)), "forecast", 30),
    ],
)
def test_the_first_step_with_a_result_decides(known: tuple[Reading, ...], step: str, value: float) -> None:
    found = chain(*known, forecast=IntensitySeries([EXPECTED]), static=MEAN).resolve(at(200.5))
    assert found is not None
    assert (found.step, found.reading.gco2e_per_kwh) == (step, value)


@pytest.mark.parametrize(
    ("known", "step", "value"),
    [
        ((reading(198.5, 20), reading(176, 40), reading(32, 50)), "stale", 20),
        ((reading(176, 40), reading(32, 50)), "yesterday", 40),
        ((reading(175, 40), reading(32, 50)), "last week", 50),
        ((reading(175, 40), reading(33, 50)), "static", 60),
        ((), "static", 60),
    ],
)
def test_without_a_forecast_for_the_time_the_newest_and_past_days_decide_then_the_yearly_mean(
    known: tuple[Reading, ...], step: str, value: float
) -> None:
    too_early = IntensitySeries([replace(EXPECTED, start=at(199), end=at(200))])
    found = chain(*known, forecast=too_early, static=MEAN).resolve(at(200.5))
    assert found is not None
    assert (found.step, found.reading.gco2e_per_kwh) == (step, value)


def test_the_steps_are_named_in_the_order_in_which_they_are_taken() -> None:
    assert FALLBACK_STEPS == ("fresh", "forecast", "stale", "yesterday", "last week", "static")


@pytest.mark.fault(number=17)
@pytest.mark.parametrize("source", ["uk", "own forecast"])
def test_a_forecast_for_the_moment_goes_before_a_reading_that_has_ended(source: str) -> None:
    known = chain(reading(199, 20), forecast=IntensitySeries([replace(EXPECTED, source=source)]))
    found = known.resolve(at(200.01))
    assert found is not None
    assert (found.step, found.reading.gco2e_per_kwh) == ("forecast", 30)
    assert [piece.source for piece in known.fill(at(200), at(201))] == [f"forecast ({source})"]


def test_a_reading_covers_its_start_and_not_its_end() -> None:
    only = chain(reading(5, 10), stale_hours=0)
    assert only.resolve(at(5)) == ResolvedIntensity(reading(5, 10), "fresh")
    assert only.resolve(at(6)) == ResolvedIntensity(reading(5, 10), "stale")
    assert only.resolve(at(6) + timedelta(microseconds=1)) is None


def test_a_reading_is_stale_up_to_the_limit_inclusive_counted_from_its_end() -> None:
    only = chain(reading(5, 10), stale_hours=3)
    assert only.resolve(at(9)) == ResolvedIntensity(reading(5, 10), "stale")
    assert only.resolve(at(9) + timedelta(microseconds=1)) is None


def test_the_newest_reading_that_has_ended_is_the_stale_one_and_a_later_one_is_never_used() -> None:
    known = chain(reading(1, 10), reading(3, 20), reading(6, 30))
    found = known.resolve(at(4.5))
    assert found == ResolvedIntensity(reading(3, 20), "stale")
    assert known.resolve(at(0.5)) is None


def test_without_readings_and_a_mean_there_is_no_intensity() -> None:
    assert chain().resolve(at(0)) is None
    assert chain().fill(at(0), at(3)) == EMPTY


def test_only_a_measured_reading_that_covers_the_time_counts_as_measured() -> None:
    measured, guessed = reading(0, 10), reading(0, 10, estimated=True)
    assert not ResolvedIntensity(measured, "fresh").estimated
    assert ResolvedIntensity(guessed, "fresh").estimated
    assert all(ResolvedIntensity(measured, step).estimated for step in FALLBACK_STEPS[1:])


def test_a_labelled_reading_names_its_step_and_keeps_its_times() -> None:
    stored = reading(0, 10)
    assert ResolvedIntensity(stored, "fresh").to_labelled_reading() == stored
    assert ResolvedIntensity(stored, "last week").to_labelled_reading() == replace(
        stored, source="last week (uk)", estimated=True
    )
    assert ResolvedIntensity(EXPECTED, "forecast").source == "forecast (own forecast)"
    assert ResolvedIntensity(MEAN, "static").source == "static"


def test_an_average_static_reading_is_skipped_for_marginal_intensity() -> None:
    marginal = reading(5, 10, signal="marginal")
    assert chain(marginal, static=MEAN, basis=MARGINAL).resolve(at(9)) is None
    stale = replace(marginal, start=at(6), end=at(7), source="stale (uk)", estimated=True)
    filled = chain(marginal, static=MEAN, basis=MARGINAL, stale_hours=1).fill(at(5), at(9))
    assert filled == IntensitySeries([marginal, stale])
    found = chain(marginal, static=MEAN, basis=MARGINAL).resolve(at(5.5))
    assert found == ResolvedIntensity(marginal, "fresh")


@pytest.mark.parametrize(
    ("readings", "forecast", "message"),
    [
        ({}, {"signal": "marginal"}, "the forecast are marginal, life cycle: expected average, life cycle"),
        ({"signal": "marginal"}, {}, "the readings are marginal, life cycle: expected average, life cycle"),
        ({"emission_factors": "direct"}, {}, "the readings are average, direct: expected average, life cycle"),
        ({}, {"zone": "FR"}, "the forecast are of the zone FR: expected ES"),
    ],
)
def test_zones_and_bases_are_never_mixed(readings: dict[str, Any], forecast: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidReading, match=message):
        chain(reading(8, 10, **readings), forecast=IntensitySeries([reading(9, 1, **forecast)]))


def test_a_naive_time_and_a_negative_limit_are_refused() -> None:
    with pytest.raises(ValueError, match="expected an aware time"):
        chain().resolve(at(9).replace(tzinfo=None))
    with pytest.raises(ValueError, match=r"stale_limit is .*: expected at least 0"):
        chain(stale_hours=-1).resolve(at(9))
    with pytest.raises(ValueError, match="before its start"):
        chain().fill(at(9), at(8))


def test_a_gap_is_filled_piece_by_piece_each_with_the_name_of_its_step() -> None:
    before = [reading(hour, 100 + hour) for hour in range(3)]
    after = reading(31, 5)
    forecast = IntensitySeries([replace(EXPECTED, start=at(4), end=at(6))])
    series = chain(*before, after, forecast=forecast).fill(at(1.5), at(31.5))
    assert series.readings[:2] == (before[1], before[2])
    assert series.readings[-1] == after
    pieces = [(piece.start, piece.end, piece.gco2e_per_kwh, piece.source) for piece in series.readings[2:-1]]
    assert pieces == [
        (at(3), at(4), 102, "stale (uk)"),
        (at(4), at(6), 30, "forecast (own forecast)"),
        (at(24), at(25), 100, "yesterday (uk)"),
        (at(25), at(26), 101, "yesterday (uk)"),
        (at(26), at(27), 102, "yesterday (uk)"),
    ]
    assert all(piece.estimated for piece in series.readings[2:-1])


def test_half_hourly_readings_fill_half_hours_of_the_day_after() -> None:
    known = [reading(hour / 2, 10 * hour, hours=0.5) for hour in range(4)]
    series = chain(*known).fill(at(24.25), at(25.25))
    assert [(piece.start, piece.end, piece.gco2e_per_kwh) for piece in series] == [
        (at(24.25), at(24.5), 0),
        (at(24.5), at(25), 10),
        (at(25), at(25.25), 20),
    ]


def test_a_yearly_mean_of_the_country_fills_the_gaps_of_a_zone_within_it() -> None:
    series = chain(reading(1, 10), static=replace(MEAN, zone="ESP"), stale_hours=0).fill(at(0), at(4))
    assert [(piece.zone, piece.source, piece.start, piece.end) for piece in series] == [
        ("ES", "static", at(0), at(1)),
        ("ES", "uk", at(1), at(2)),
        ("ES", "static", at(2), at(4)),
    ]


def series_of(hours: list[tuple[int, int]], **fields: Any) -> list[Reading]:
    """Half-hourly readings, given as (index of the half hour, value)."""
    return [reading(place / 2, value, hours=0.5, **fields) for place, value in hours]


places = st.lists(st.tuples(st.integers(0, 8 * 48), st.integers(0, 9)), unique_by=lambda one: one[0], max_size=40)


@given(
    places,
    places,
    st.booleans(),
    st.integers(0, 40),
    st.integers(0, 8 * 96),
    st.integers(0, 60),
)
def test_a_filled_series_equals_the_chain_at_every_moment(
    known: list[tuple[int, int]],
    expected: list[tuple[int, int]],
    mean_known: bool,
    stale_quarters: int,
    first: int,
    quarters: int,
) -> None:
    settings = chain(
        *series_of(known),
        forecast=IntensitySeries(series_of(expected, source="own forecast")),
        static=MEAN if mean_known else None,
        stale_hours=stale_quarters / 4,
    )
    series = settings.fill(at(first / 4), at((first + quarters) / 4))
    for quarter in range(first, first + quarters):
        moment = at(quarter / 4 + 0.1)
        found, got = settings.resolve(moment), series.at(moment)
        assert (found is None) == (got is None)
        if found is not None and got is not None:
            assert (got.gco2e_per_kwh, got.source, got.estimated) == (
                found.reading.gco2e_per_kwh,
                found.source,
                found.estimated,
            )
