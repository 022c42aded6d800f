"""The cleanest window of a forecast: the lowest mean, the earliest of equals, never over a gap."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.carbon import IntensitySeries, Reading
from greencore.clock import HOUR
from greencore.policy.gate.cleanest_window import find_cleanest_window

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def series(values: Sequence[float | None]) -> IntensitySeries:
    """One value an hour from `START` on; None is a gap."""
    return IntensitySeries(
        Reading(
            zone="FR",
            start=START + offset * HOUR,
            end=START + (offset + 1) * HOUR,
            gco2e_per_kwh=value,
            source="uk",
            fetched_at=START,
        )
        for offset, value in enumerate(values)
        if value is not None
    )


def test_the_window_has_the_lowest_mean_and_not_the_lowest_hour() -> None:
    window = find_cleanest_window(series([300, 10, 300, 100, 90, 110, 300]), start=START, end=START + 7 * HOUR, hours=3)

    assert window is not None
    assert (window.start, window.end) == (START + 3 * HOUR, START + 6 * HOUR)
    assert window.gco2e_per_kwh == pytest.approx(100)


def test_the_earliest_of_equal_windows_is_chosen() -> None:
    now = START + HOUR / 4
    window = find_cleanest_window(series([50] * 6), start=now, end=START + 6 * HOUR, hours=2)

    assert window is not None
    assert window.start == now
    assert window.gco2e_per_kwh == pytest.approx(50)


def test_a_window_never_spans_a_gap() -> None:
    forecast = series([200, 10, None, 10, 220, 210, 220])
    window = find_cleanest_window(forecast, start=START, end=START + 7 * HOUR, hours=2)

    assert window is not None
    assert window.start == START
    assert window.gco2e_per_kwh == pytest.approx(105)


def test_the_window_is_within_the_given_times() -> None:
    forecast = series([200, 190, 180, 1, 1])
    window = find_cleanest_window(forecast, start=START, end=START + 3 * HOUR, hours=2)

    assert window is not None
    assert window.end == START + 3 * HOUR
    assert window.gco2e_per_kwh == pytest.approx(185)
    assert find_cleanest_window(forecast, start=START, end=START + 3 * HOUR, hours=3.5) is None
    assert find_cleanest_window(IntensitySeries(), start=START, end=START + 3 * HOUR, hours=1) is None


def test_hours_of_0_are_refused() -> None:
    with pytest.raises(ValueError, match="hours is 0"):
        find_cleanest_window(series([1]), start=START, end=START + HOUR, hours=0)


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 900)), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(0, 3),
)
def test_no_quarter_hour_starts_a_cleaner_window(values: list[int | None], hours: int, quarters: int) -> None:
    forecast, start, end = series(values), START + quarters * HOUR / 4, START + len(values) * HOUR
    means = {}
    for step in range(4 * len(values)):
        begin = start + step * HOUR / 4
        if begin + hours * HOUR <= end and len(forecast):
            mean = forecast.mean(begin, begin + hours * HOUR)
            if mean.covered_share == 1:
                means[begin] = mean.gco2e_per_kwh

    window = find_cleanest_window(forecast, start=start, end=end, hours=hours)

    if not means:
        assert window is None
        return
    assert window is not None
    assert window.gco2e_per_kwh == pytest.approx(min(means.values()))
    earliest = min(begin for begin, mean in means.items() if mean <= min(means.values()) + 1e-9)
    assert window.start <= earliest + timedelta(milliseconds=1)
