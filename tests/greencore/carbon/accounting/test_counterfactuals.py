import math
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greencore.carbon import IntensitySeries, NoReading, Reading
from greencore.carbon.accounting.counterfactuals import (
    CleanestMean,
    Counterfactual,
    cleanest_mean,
    estimate_counterfactuals,
)
from greencore.carbon.accounting.pricing import price_by_reading
from greencore.carbon.accounting.run_parts import RunPart
from greencore.carbon.accounting.savings import attribute_savings
from greencore.energy import EnergyInterval

MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)


def at(hours: float) -> datetime:
    return MIDNIGHT + timedelta(hours=hours)


def hourly(*values: float | None) -> IntensitySeries:
    """Hourly readings from midnight on; None leaves a gap."""
    return IntensitySeries(
        Reading(zone="ES", start=at(hour), end=at(hour + 1), gco2e_per_kwh=value, source="test", fetched_at=MIDNIGHT)
        for hour, value in enumerate(values)
        if value is not None
    )


def three(series: IntensitySeries, **changed: Any) -> dict[str, Counterfactual]:
    """Two hours of 1 kWh each at half of the full FLOPs, begun at midnight and finished at six."""
    settings: dict[str, Any] = {
        "energy_kwh": 2.0,
        "run_hours": 2.0,
        "share": 0.5,
        "earliest_start": at(0),
        "deadline": None,
        "finished": at(6),
        "pue": 1.0,
    } | changed
    part = priced(settings.pop("run_hours"), settings.pop("energy_kwh"), series, pue=settings.pop("pue"))
    return {estimate.name: estimate for estimate in estimate_counterfactuals([part], series=series, **settings)}


def priced(hours: float, energy_kwh: float, series: IntensitySeries, *, pue: float = 1.0) -> RunPart:
    """A part of an epoch from midnight on, with the emissions that it was charged."""
    intensity = series.mean(at(0), at(max(hours, 0.0))).gco2e_per_kwh
    return RunPart(hours, energy_kwh, max(energy_kwh, 0.0) * pue * intensity, in_epoch=True, pue=pue)


def test_all_the_work_at_once_takes_time_and_energy_in_proportion_to_its_flops() -> None:
    full = three(hourly(100, 200, 300, 400, 1, 1))["full_now"]
    assert (full.energy_kwh, full.hours, full.start, full.end) == (4.0, 4.0, at(0), at(4))
    assert full.emissions_gco2e == pytest.approx(100 + 200 + 300 + 400)
    assert (full.covered_share, full.estimated) == (1.0, True)
    assert "ρ = 1" in full.assumption
    assert "2026-11-23 00:00 UTC" in full.assumption


def test_the_same_work_at_once_has_the_energy_and_the_hours_of_the_run() -> None:
    constant = three(hourly(100, 200, 300, 400, 1, 1))["constant_now"]
    assert (constant.energy_kwh, constant.hours, constant.start, constant.end) == (2.0, 2.0, at(0), at(2))
    assert constant.emissions_gco2e == pytest.approx(100 + 200)
    assert "constant ρ" in constant.assumption


def test_the_oracle_takes_the_cleanest_hours_up_to_the_end_or_else_the_deadline() -> None:
    series = hourly(100, 200, 50, 400, 20, 60, 1, 1)
    free, bound = three(series)["oracle"], three(series, deadline=at(3))["oracle"]
    assert free.emissions_gco2e == pytest.approx(50 + 20)
    assert (free.start, free.end, free.hours, free.energy_kwh) == (at(0), at(6), 2.0, 2.0)
    assert "to its end (2026-11-23 06:00 UTC)" in free.assumption
    assert bound.emissions_gco2e == pytest.approx(50 + 100)
    assert "to the deadline (2026-11-23 03:00 UTC)" in bound.assumption


def test_a_run_longer_than_its_deadline_allows_is_given_the_time_that_it_runs() -> None:
    oracle = three(hourly(100, 200, 50, 400, 20, 60), deadline=at(1))["oracle"]
    assert oracle.emissions_gco2e == pytest.approx(300)
    assert oracle.end == at(2)


def test_all_three_are_multiplied_by_the_pue() -> None:
    series = hourly(100, 200, 50, 400, 20, 60)
    for name, plain in three(series).items():
        assert three(series, pue=1.5)[name].emissions_gco2e == pytest.approx(1.5 * plain.emissions_gco2e)


def test_uncovered_hours_are_priced_by_the_nearest_reading_and_lower_the_covered_share() -> None:
    estimates = three(hourly(100, 200))
    assert estimates["full_now"].emissions_gco2e == pytest.approx(100 + 200 + 200 + 200)
    assert estimates["full_now"].covered_share == 0.5
    assert estimates["constant_now"].covered_share == 1.0
    assert estimates["oracle"].emissions_gco2e == pytest.approx(300)
    assert estimates["oracle"].covered_share == 1.0


def test_a_job_that_used_nothing_and_a_grid_that_emits_nothing_have_estimates_of_zero() -> None:
    for estimates in (three(hourly(100, 200), energy_kwh=0.0), three(hourly(0, 0))):
        assert [estimate.emissions_gco2e for estimate in estimates.values()] == [0, 0, 0]


def test_without_any_reading_there_is_no_estimate() -> None:
    with pytest.raises(NoReading):
        three(IntensitySeries())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"energy_kwh": -1.0}, "energy_kwh is -1.0"),
        ({"energy_kwh": float("nan")}, "energy_kwh is nan"),
        ({"run_hours": -1.0}, "hours is -1.0: expected a finite number that is at least 0"),
        ({"run_hours": 0.0}, "hours is 0.0: expected more than 0"),
        ({"share": 0.0}, "share is 0.0: expected a finite number greater than 0"),
        ({"share": float("inf")}, "share is inf"),
        ({"pue": 0.9}, "pue is 0.9"),
        ({"finished": at(-1)}, "before its start"),
        ({"earliest_start": MIDNIGHT.replace(tzinfo=None)}, "start is .*: expected an aware time"),
        ({"deadline": MIDNIGHT.replace(tzinfo=None)}, "deadline is .*: expected an aware time"),
    ],
)
def test_an_impossible_job_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        three(hourly(100, 200), **changed)


@given(
    st.lists(st.floats(0.34, 1), min_size=1, max_size=8),
    st.lists(st.floats(0, 800), min_size=40, max_size=40),
    st.floats(0, 12),
)
def test_varying_rho_over_epochs_back_to_back_moves_nothing_in_time(
    rho: list[float], intensity: list[float], begin: float
) -> None:
    power_kw, full_epoch_hours = 0.3, 2.0
    series, earliest_start = hourly(*intensity), at(begin)
    edges = [earliest_start]
    for share in rho:
        edges.append(edges[-1] + timedelta(hours=share * full_epoch_hours))
    epochs = [
        EnergyInterval(start, end, 0.0, power_kw * ((end - start) / timedelta(hours=1)), 0.0, "none", "NVML", "none")
        for start, end in pairwise(edges)
    ]
    parts = [
        RunPart(
            hours=(epoch.end - epoch.start) / timedelta(hours=1),
            energy_kwh=epoch.energy_kwh,
            emissions_gco2e=math.fsum(piece.emissions_gco2e or 0.0 for piece in price_by_reading(epoch, series)),
            in_epoch=True,
        )
        for epoch in epochs
    ]
    full, *_ = estimate_counterfactuals(
        parts,
        share=math.fsum(rho) / len(rho),
        earliest_start=earliest_start,
        deadline=None,
        finished=edges[-1],
        series=series,
    )
    saved = attribute_savings(parts, full_gco2e=full.emissions_gco2e, earliest_start=earliest_start, series=series)
    assert (saved.moved_in_time, saved.queueing, saved.owner_pause, saved.lost_work) == (0, 0, 0, 0)
    actual = math.fsum(part.emissions_gco2e for part in parts)
    assert saved.less_work * full.emissions_gco2e == pytest.approx(full.emissions_gco2e - actual, abs=1e-6)


def test_cleanest_hours_are_taken_in_parts_of_any_length() -> None:
    found = cleanest_mean(hourly(100, 20, 300), at(0.25), at(3), 1.5)
    assert astuple(found) == pytest.approx(((20 * 1 + 100 * 0.5) / 1.5, 1.0))


def test_cleanest_hours_of_a_whole_window_are_its_mean() -> None:
    assert astuple(cleanest_mean(hourly(100, 20, 300), at(0), at(3), 3)) == pytest.approx((140, 1.0))


def test_gaps_are_taken_after_readings_of_the_same_intensity_and_lower_the_covered_share() -> None:
    series = hourly(10, None, 10, 300)
    assert cleanest_mean(series, at(0), at(4), 2) == CleanestMean(10, 1.0)
    assert astuple(cleanest_mean(series, at(0), at(4), 3)) == pytest.approx((10, 2 / 3))
    assert cleanest_mean(series, at(-1), at(0), 1) == CleanestMean(10, 0.0)


@pytest.mark.parametrize("hours", [0.0, -1.0, 2.1])
def test_more_hours_than_the_window_has_are_refused(hours: float) -> None:
    with pytest.raises(ValueError, match=f"hours is {hours}: expected more than 0 and at most 2"):
        cleanest_mean(hourly(10, 20), at(0), at(2), hours)


def test_an_empty_series_has_no_clean_hours() -> None:
    with pytest.raises(NoReading):
        cleanest_mean(IntensitySeries(), at(0), at(2), 1)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.one_of(st.none(), st.integers(0, 9))), min_size=1, max_size=8).filter(
        lambda pieces: any(value is not None for _, value in pieces)
    ),
    st.integers(-4, 20),
    st.integers(1, 30),
    st.data(),
)
def test_no_choice_of_quarters_of_an_hour_is_cleaner(
    pieces: list[tuple[int, int | None]], first: int, quarters: int, data: st.DataObject
) -> None:
    readings, place = list[Reading](), 0
    for length, value in pieces:
        if value is not None:
            readings.append(
                Reading(
                    zone="ES",
                    start=at(place / 4),
                    end=at((place + length) / 4),
                    gco2e_per_kwh=value,
                    source="test",
                    fetched_at=MIDNIGHT,
                )
            )
        place += length
    series = IntensitySeries(readings)
    chosen = data.draw(st.integers(1, quarters))
    each = sorted(
        series.mean(at((first + quarter) / 4), at((first + quarter + 1) / 4)).gco2e_per_kwh
        for quarter in range(quarters)
    )
    found = cleanest_mean(series, at(first / 4), at((first + quarters) / 4), chosen / 4)
    assert found.gco2e_per_kwh == pytest.approx(math.fsum(each[:chosen]) / chosen, rel=1e-12, abs=1e-12)
