"""The ρ that a policy is expected to have, by which `auto` counts a job's budget."""

from typing import Any

import pytest

from greencore.carbon import Reading
from greencore.clock import HOUR
from greencore.policy import parse_policy
from planning.method_budget import ExpectedRho, expect_rho, find_certain_method
from runtime.settings import Settings
from store.database import Database
from store.intensity.readings import GridRepository
from tests.scheduler.stage import START, add_worker

LINEAR = {"kind": "linear", "clean": 100, "dirty": 300, "rho_max": 1.0, "rho_min": 0.5}


def store_intensities(database: Database, zone: str, *values: float) -> None:
    """Store the intensity in force, and a forecast, of six hours for each value."""
    readings = [
        Reading(
            zone=zone,
            start=START + 6 * number * HOUR,
            end=START + 6 * (number + 1) * HOUR,
            gco2e_per_kwh=value,
            source="test",
            fetched_at=START,
        )
        for number, value in enumerate(values)
    ]
    with database.session() as session:
        GridRepository(session).put(readings[:1])
        GridRepository(session).put_forecast(zone, "average", readings, at=START)


def expect(database: Database, settings: Settings, policy: dict[str, Any], zone: str | None = None) -> ExpectedRho:
    with database.session() as session:
        return expect_rho(session, settings, parse_policy(policy), zone=zone, at=START)


@pytest.mark.parametrize(
    ("policy", "rho"),
    [
        ({"kind": "constant", "rho": 0.6, "on_missing": {"rho": 0.9}}, 0.6),
        ({"kind": "percentile", "window_hours": 24, "rho_max": 1.0, "rho_min": 0.4}, 0.7),
        ({"kind": "percentile", "window_hours": 24, "gamma": 2.0, "rho_max": 1.0, "rho_min": 0.4}, 0.8),
        (LINEAR, 0.75),
        ({"kind": "steps", "steps": [{"up_to": 100, "rho": 1.0}, {"rho": 0.4}]}, 0.7),
    ],
)
def test_without_an_intensity_the_policys_own_mean_is_expected(
    database: Database, settings: Settings, policy: dict[str, Any], rho: float
) -> None:
    assert expect(database, settings, policy).rho == pytest.approx(rho)


def test_a_policy_by_the_intensity_is_averaged_over_the_forecast_of_the_zone(
    database: Database, settings: Settings
) -> None:
    store_intensities(database, "FR", 100, 200, 300, 400, 50)  # the last is after a day
    found = expect(database, settings, LINEAR, "FR")
    assert found.rho == pytest.approx((1.0 + 0.75 + 0.5 + 0.5) / 4)
    assert found.basis == "a mean ρ of 0.688, by the intensity of FR over the next 24 h"


def test_a_job_of_any_zone_is_expected_in_the_cleanest_with_a_worker(database: Database, settings: Settings) -> None:
    for zone, value in (("FR", 100.0), ("GB", 200.0), ("DE", 300.0)):
        store_intensities(database, zone, value)
    for zone in ("GB", "DE"):
        add_worker(database, zone, name=zone)
    assert expect(database, settings, LINEAR).rho == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("policy", "method"),
    [
        ({"kind": "budget", "budget_gco2e": 5.0, "rho_max": 1.0, "rho_min": 0.5}, "greentrainer"),
        ({"kind": "price", "gco2e_per_loss": 5.0, "rho_max": 1.0, "rho_min": 0.5}, "greentrainer"),
        (LINEAR, "auto"),
    ],
)
def test_only_a_policy_by_emissions_decides_the_method(policy: dict[str, Any], method: str) -> None:
    assert find_certain_method("auto", parse_policy(policy)) == method
    assert find_certain_method("full", parse_policy(policy)) == "full"
