from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.carbon import IntensitySeries, Reading
from greencore.policy import Percentile, parse_policy

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)


def percentile(**fields: Any) -> Percentile:
    policy = parse_policy({"kind": "percentile", "window_hours": 4, "rho_max": 1.0, "rho_min": 0.4} | fields)
    assert isinstance(policy, Percentile)
    return policy


def hourly(values: Sequence[float], *, last_end: datetime = NOW) -> IntensitySeries:
    """Readings of an hour each, of which the last ends at a time."""
    start = last_end - timedelta(hours=len(values))
    return IntensitySeries(
        Reading(
            zone="ES",
            start=start + timedelta(hours=hour),
            end=start + timedelta(hours=hour + 1),
            gco2e_per_kwh=value,
            source="trace (synthetic)",
            fetched_at=NOW,
        )
        for hour, value in enumerate(values)
    )


@pytest.mark.parametrize(
    ("intensity", "rank"),
    [(0, 0.0), (9.9, 0.0), (10, 1 / 8), (15, 1 / 4), (20, 1 / 2), (25, 3 / 4), (30, 7 / 8), (31, 1.0)],
)
def test_rank_is_the_share_of_cleaner_time_plus_half_of_equal_time(intensity: float, rank: float) -> None:
    assert percentile().rank(intensity, hourly([20, 10, 30, 20]), NOW) == rank


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("value", [0.0, 200.0])
def test_a_flat_window_ranks_its_own_value_in_the_middle(count: int, value: float) -> None:
    policy = percentile()
    window = hourly([value] * count)
    assert policy.rank(value, window, NOW) == 0.5
    assert policy.rho_at_rank(0.5) == pytest.approx(0.7)
    assert policy.rank(value + 1, window, NOW) == 1.0


def test_an_empty_window_has_no_ranks() -> None:
    policy = percentile()
    assert policy.rank(100, IntensitySeries(), NOW) is None
    assert policy.rank(100, hourly([1, 2, 3], last_end=NOW - timedelta(hours=4)), NOW) is None
    assert policy.rank(100, hourly([1, 2, 3], last_end=NOW + timedelta(hours=3)), NOW) is None


def test_a_reading_counts_by_its_time_within_the_window() -> None:
    # Half an hour of the oldest reading is within the window, and half an hour of the one that is still valid.
    window = hourly([10, 20, 20, 20, 30], last_end=NOW + timedelta(minutes=30))
    policy = percentile()
    assert policy.rank(15, window, NOW) == 0.5 / 4
    assert policy.rank(25, window, NOW) == 3.5 / 4
    assert policy.covered_hours(window, NOW) == 4


def test_the_cleanest_gets_rho_max_and_the_dirtiest_rho_min_exactly() -> None:
    policy = percentile(rho_max=0.9, rho_min=0.3, gamma=0.7)
    assert (policy.rho_at_rank(0), policy.rho_at_rank(1)) == (0.9, 0.3)


def test_a_larger_gamma_keeps_rho_high_for_longer() -> None:
    assert percentile(gamma=1).rho_at_rank(0.5) == pytest.approx(0.7)
    assert percentile(gamma=2).rho_at_rank(0.5) == pytest.approx(0.85)


@given(
    values=st.lists(st.integers(0, 5).map(float), min_size=1, max_size=8),
    intensity=st.integers(0, 6).map(float),
    gamma=st.floats(0.1, 10),
)
def test_rank_and_rho_follow_their_definition(values: list[float], intensity: float, gamma: float) -> None:
    policy = percentile(window_hours=len(values), gamma=gamma)
    rank = policy.rank(intensity, hourly(values), NOW)
    wanted = (sum(v < intensity for v in values) + sum(v == intensity for v in values) / 2) / len(values)
    assert rank is not None
    assert rank == pytest.approx(wanted)
    assert policy.rho_at_rank(rank) == pytest.approx(1.0 - 0.6 * wanted**gamma)


@given(
    ranks=st.lists(st.floats(0, 1), min_size=1, max_size=40),
    bounds=st.lists(st.floats(0.01, 1), min_size=2, max_size=2).map(sorted),
    gamma=st.floats(0.01, 100),
)
def test_rho_at_ranks_equals_rho_at_rank_of_each(ranks: list[float], bounds: list[float], gamma: float) -> None:
    policy = percentile(rho_min=bounds[0], rho_max=bounds[1], gamma=gamma)
    rhos = policy.rho_at_ranks(np.array(ranks))
    assert rhos.tolist() == [policy.rho_at_rank(rank) for rank in ranks]
    assert ((rhos >= bounds[0]) & (rhos <= bounds[1])).all()
