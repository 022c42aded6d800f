import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from greencore.carbon import UnknownZone, open_source

NOW = datetime(2026, 11, 23, 10, 20, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "gco2e_per_kwh"),
    [
        ("FR", 56),
        ("FRA", 56),
        ("fr", 56),
        ("DE", 381),
        ("GB", 238),
        ("POL", 662),
        ("SE", 41),
        ("USA", 369),
        ("IN", 713),
        ("WORLD", 475),
    ],
)
def test_each_country_has_its_yearly_mean(zone: str, gco2e_per_kwh: float) -> None:
    assert open_source("static", zone).latest().gco2e_per_kwh == pytest.approx(gco2e_per_kwh, abs=0.5)


@pytest.mark.parametrize("zone", ["", "XX", "XXX", "ES-CN", "France"])
def test_an_unknown_zone_is_named(zone: str) -> None:
    with pytest.raises(UnknownZone, match=f"unknown zone '{zone}'") as caught:
        open_source("static", zone)
    assert caught.value.zone == zone


def test_the_reading_is_of_the_current_hour_and_an_estimate() -> None:
    reading = open_source("static", "FR", clock=lambda: NOW).latest()
    assert (reading.start, reading.end) == (
        NOW.replace(minute=0, second=0),
        NOW.replace(hour=11, minute=0, second=0),
    )
    assert (reading.zone, reading.source, reading.estimated, reading.signal) == (
        "FR",
        "static",
        True,
        "average",
    )
    assert reading.fetched_at == NOW


def test_forecast_and_history_hold_the_same_value_for_every_hour() -> None:
    source = open_source("static", "FR", clock=lambda: NOW)
    forecast = source.forecast(24)
    assert len(forecast) == 25
    assert forecast.mean(NOW, NOW + timedelta(hours=24)).covered_share == 1.0
    assert {reading.gco2e_per_kwh for reading in forecast} == {source.latest().gco2e_per_kwh}
    history = source.history(NOW - timedelta(hours=3), NOW)
    assert history.mean(NOW - timedelta(hours=3), NOW).covered_share == 1.0
    assert len(source.history(NOW, NOW)) == 0


def test_a_backward_history_and_a_forecast_of_no_hours_are_refused() -> None:
    source = open_source("static", "FR", clock=lambda: NOW)
    with pytest.raises(ValueError, match="before its start"):
        source.history(NOW, NOW - timedelta(hours=1))
    with pytest.raises(ValueError, match="hours is 0"):
        source.forecast(0)


def test_neither_torch_nor_codecarbon_is_imported_to_know_an_intensity_or_to_decide() -> None:
    program = (
        "import sys, greencore.carbon, greencore.policy\n"
        "greencore.carbon.open_source('static', 'FR').latest()\n"
        "print([name for name in ('torch', 'codecarbon', 'pandas') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
