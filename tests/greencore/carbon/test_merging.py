"""Precedence of readings of the same time."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from greencore.carbon import Reading
from greencore.carbon.merging import merge_readings
from greencore.clock import HOUR

START = datetime(2026, 3, 29, tzinfo=UTC)


def reading(begins: float, ends: float, value: float, *, estimated: bool = False, fetched: float = 0.0) -> Reading:
    return Reading(
        zone="X",
        start=START + begins * HOUR,
        end=START + ends * HOUR,
        gco2e_per_kwh=value,
        source="test",
        estimated=estimated,
        fetched_at=START + fetched * HOUR,
    )


def test_readings_without_overlap_stay_as_they_are() -> None:
    readings = [reading(0, 1, 100), reading(2, 3, 200)]
    assert merge_readings(reversed(readings)).readings == tuple(readings)


def test_a_measured_value_has_precedence_over_a_later_estimate() -> None:
    measured = reading(0, 1, 100)
    assert merge_readings([measured, reading(0, 1, 150, estimated=True, fetched=5)]).readings == (measured,)


def test_of_two_measurements_the_later_fetched_is_kept() -> None:
    later = reading(0, 1, 110, fetched=2)
    assert merge_readings([later, reading(0, 1, 100, fetched=1)]).readings == (later,)


def test_a_finer_resolution_cuts_the_coarser_one() -> None:
    found = merge_readings([reading(0, 2, 100), reading(0.5, 1, 50)])
    assert [(r.start - START, r.end - START, r.gco2e_per_kwh) for r in found] == [
        (0 * HOUR, 0.5 * HOUR, 100),
        (0.5 * HOUR, HOUR, 50),
        (HOUR, 2 * HOUR, 100),
    ]


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(1, 6), st.integers(0, 500), st.booleans(), st.integers(0, 3)),
        max_size=12,
    )
)
def test_every_moment_has_the_reading_of_the_highest_rank(rows: list[tuple[int, int, int, bool, int]]) -> None:
    readings = [reading(b, b + n, value, estimated=e, fetched=f) for b, n, value, e, f in rows]
    found = merge_readings(readings)
    for half_hour in range(38):
        time = START + half_hour * HOUR / 2
        over = [r for r in readings if r.start <= time < r.end]
        best = max(((not r.estimated, r.fetched_at, r.start) for r in over), default=None)
        merged = found.at(time)
        if best is None:
            assert merged is None
        else:
            assert merged is not None
            candidates = {r.gco2e_per_kwh for r in over if (not r.estimated, r.fetched_at, r.start) == best}
            assert merged.gco2e_per_kwh in candidates
