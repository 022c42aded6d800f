from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from greencore.carbon import IntensitySeries, NoReading, Reading, price

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
    priced = price(Used(second(0), second(6), 2.0), steps(100, 1000))
    assert priced.emissions_gco2e == pytest.approx(2.0 * (100 + 1000) / 2)
    assert priced.intensity_gco2e_per_kwh == pytest.approx(550)
    assert (priced.covered_share, priced.estimated, priced.sources) == (1.0, False, ("test",))


def test_the_parts_of_an_interval_emit_as_much_as_the_whole() -> None:
    series = steps(100, 1000, 300)
    whole = price(Used(second(1), second(8), 7.0), series)
    parts = [price(Used(second(1 + i), second(2 + i), 1.0), series) for i in range(7)]
    assert sum(part.emissions_gco2e for part in parts) == pytest.approx(whole.emissions_gco2e)
    assert whole.emissions_gco2e == pytest.approx(2 * 100 + 3 * 1000 + 2 * 300)


def test_a_price_beyond_the_readings_says_that_it_is_an_estimate() -> None:
    priced = price(Used(second(0), second(6), 1.0), steps(100))
    assert (priced.emissions_gco2e, priced.covered_share, priced.estimated) == (100.0, 0.5, True)


def test_energy_at_an_instant_has_the_intensity_of_that_instant() -> None:
    assert price(Used(second(4), second(4), 0.5), steps(100, 1000)).emissions_gco2e == 500


def test_no_reading_at_all_is_no_price() -> None:
    with pytest.raises(NoReading):
        price(Used(second(0), second(6), 1.0), IntensitySeries())


@pytest.mark.parametrize("energy_kwh", [-1.0, float("nan")])
def test_impossible_energy_is_refused(energy_kwh: float) -> None:
    with pytest.raises(ValueError, match="energy_kwh is"):
        price(Used(second(0), second(6), energy_kwh), steps(100))
