"""`/zones`: intensities of the grid, their sources, and their age."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event

from api.main import create_app
from greencore.carbon import Reading
from greencore.clock import HOUR
from runtime.settings import Settings
from runtime.site import Site
from store.database import Database
from store.intensity.provider_health import ProviderRepository
from store.intensity.readings import GridRepository
from store.repositories.workers import WorkerRepository
from tests.keys import bearer


def reading(start: datetime, intensity: float, **fields: Any) -> Reading:
    defaults = {"zone": "FR", "end": start + HOUR, "source": "uk", "estimated": False, "fetched_at": start}
    return Reading(start=start, gco2e_per_kwh=intensity, **{**defaults, **fields})


def store_readings(database: Database, *readings: Reading) -> None:
    with database.session() as session:
        GridRepository(session).put(readings)


def store_forecast(database: Database, *readings: Reading, at: datetime) -> None:
    with database.session() as session:
        GridRepository(session).put_forecast("FR", readings[0].signal, readings, at=at)


@pytest.fixture
def client_of_mars(settings: Settings, now: datetime, operator_key: str) -> Iterator[TestClient]:
    """A service whose only zone, MARS, has no yearly mean to fall back on."""
    app = create_app(settings.model_copy(update={"zones": {"MARS": "uk"}}), clock=lambda: now)
    with TestClient(app, headers=bearer(operator_key)) as client:
        yield client


def test_the_reading_in_force_is_given_with_its_source_and_its_age(
    client: TestClient, database: Database, now: datetime
) -> None:
    half = timedelta(minutes=30)
    store_readings(database, reading(now - 3 * half, 40.0), reading(now - half, 56.0), reading(now + half, 70.0))

    intensity = client.get("/zones/FR/intensity").json()

    assert intensity["gco2e_per_kwh"] == 56.0
    assert intensity["age_seconds"] == 1800
    assert (intensity["step"], intensity["source"], intensity["estimated"]) == ("fresh", "uk", False)
    assert (intensity["signal"], intensity["emission_factors"]) == ("average", "lifecycle")
    assert datetime.fromisoformat(intensity["end"]) == now + half


@pytest.mark.parametrize(
    ("hours_ago", "step", "source"),
    [
        (2, "stale", "stale (uk)"),
        (24, "yesterday", "yesterday (uk)"),
        (168, "last week", "last week (uk)"),
        (500, "static", "static"),
    ],
)
def test_without_a_fresh_reading_the_fallback_states_its_step_and_age(
    client: TestClient, database: Database, now: datetime, hours_ago: int, step: str, source: str
) -> None:
    store_readings(database, reading(now - hours_ago * HOUR, 123.0))

    intensity = client.get("/zones/FR/intensity").json()

    assert (intensity["step"], intensity["source"], intensity["estimated"]) == (step, source, True)
    if step != "static":
        assert intensity["gco2e_per_kwh"] == 123.0
        assert intensity["age_seconds"] == hours_ago * 3600


def test_a_stored_forecast_takes_precedence_over_yesterdays_reading(
    client: TestClient, database: Database, now: datetime
) -> None:
    store_readings(database, reading(now - 24 * HOUR, 123.0))
    store_forecast(database, reading(now, 99.0, estimated=True), at=now)

    intensity = client.get("/zones/FR/intensity").json()

    assert (intensity["step"], intensity["gco2e_per_kwh"]) == ("forecast", 99.0)


def test_a_marginal_zone_never_falls_back_to_an_average(client: TestClient, database: Database, now: datetime) -> None:
    average = reading(now - 24 * HOUR, 40.0, fetched_at=now - 600 * HOUR)
    store_readings(database, reading(now - 500 * HOUR, 700.0, signal="marginal"), average)

    assert client.get("/zones/FR/intensity").status_code == 503


@pytest.mark.parametrize("path", ["intensity", "forecast", "history"])
def test_an_unknown_zone_is_not_found_and_the_known_ones_are_named(client: TestClient, path: str) -> None:
    response = client.get(f"/zones/XX/{path}")

    assert response.status_code == 404
    assert "FR" in response.json()["detail"]


def test_a_zone_without_an_intensity_is_answered_503_with_the_time_to_wait(client_of_mars: TestClient) -> None:
    response = client_of_mars.get("/zones/MARS/intensity")

    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) > 0
    assert "no yearly mean is used: yearly means are average, life cycle" in response.json()["detail"]


@pytest.mark.fault(number=16)
def test_the_worlds_mean_is_used_where_the_source_names_no_country(
    settings: Settings, now: datetime, operator_key: str
) -> None:
    zones = {"DE": "trace:de.csv", "CA": "electricity-maps?zone=US-CAL-CISO", "GB": "watttime"}
    app = create_app(settings.model_copy(update={"zones": zones}), clock=lambda: now)
    with TestClient(app, headers=bearer(operator_key)) as client:
        german, californian = (client.get(f"/zones/{zone}/intensity").json() for zone in ("DE", "CA"))
        assert client.get("/zones/GB/intensity").status_code == 503
    assert (german["source"], german["gco2e_per_kwh"], german["estimated"]) == ("static (world)", 475.0, True)
    assert (californian["source"], round(californian["gco2e_per_kwh"])) == ("static (USA)", 369)


def test_the_zones_are_listed_with_what_is_known_of_each(
    client: TestClient, database: Database, settings: Settings, now: datetime
) -> None:
    store_readings(database, reading(now - HOUR / 2, 56.0))
    store_forecast(database, reading(now + HOUR / 2, 60.0, estimated=True, fetched_at=now), at=now)
    with database.session() as session:
        workers = WorkerRepository(session)
        workers.record_heartbeat("worker_1", site=Site(zone="FR"), device="cpu", at=now)
        workers.record_heartbeat("worker_4", site=Site(zone="DE"), device="cpu", at=now)
        workers.record_heartbeat("worker_2", site=Site(zone="FR"), device="cpu", at=now)
        silent = now - timedelta(seconds=settings.lease_seconds + 1)
        workers.record_heartbeat("worker_3", site=Site(zone="FR"), device="cpu", at=silent)

    zones = {zone["zone"]: zone for zone in client.get("/zones").json()["data"]}

    assert sorted(zones) == sorted(settings.zones)
    french = zones["FR"]
    assert (french["signal"], french["workers"], french["age_seconds"]) == ("average", 2, 1800)
    assert (french["newest"]["source"], french["newest"]["estimated"]) == ("uk", False)
    assert datetime.fromisoformat(french["forecast"]["until"]) == now + 1.5 * HOUR
    german = zones["DE"]
    assert german == {
        "zone": "DE",
        "signal": None,
        "newest": None,
        "age_seconds": None,
        "forecast": None,
        "workers": 1,
        "provider": None,
    }


def test_the_fault_of_a_source_is_shown_until_it_answers_again(
    client: TestClient, database: Database, now: datetime
) -> None:
    def provider(zone: str) -> Any:
        return {each["zone"]: each for each in client.get("/zones").json()["data"]}[zone]["provider"]

    minute = timedelta(minutes=1)
    with database.session() as session:
        providers = ProviderRepository(session)
        providers.record_success("FR", "uk", at=now - 10 * minute)
        providers.record_failure("FR", "uk", at=now - 5 * minute, error="timed out after 10 s")
        providers.record_failure("FR", "uk", at=now - minute, error="answered 503")
        providers.record_failure("DE", "energy-charts", at=now, error="no such country")

    french = provider("FR")
    assert (french["source"], french["failures_in_a_row"], french["fault"]) == ("uk", 2, "answered 503")
    assert datetime.fromisoformat(french["last_success_at"]) == now - 10 * minute
    assert datetime.fromisoformat(french["last_failure_at"]) == now - minute
    assert (provider("DE")["last_success_at"], provider("DE")["fault"]) == (None, "no such country")

    with database.session() as session:
        ProviderRepository(session).record_success("FR", "uk", at=now)

    french = provider("FR")
    assert (french["failures_in_a_row"], french["fault"]) == (0, None)
    assert datetime.fromisoformat(french["last_failure_at"]) == now - minute


def test_of_two_signals_of_a_zone_the_one_that_was_fetched_last_is_listed_with_its_forecast(
    client: TestClient, database: Database, now: datetime
) -> None:
    store_readings(
        database,
        reading(now - HOUR / 2, 56.0, fetched_at=now - HOUR),
        reading(now - HOUR, 700.0, signal="marginal", fetched_at=now),
    )
    store_forecast(database, reading(now + HOUR, 60.0), at=now)
    store_forecast(database, reading(now + 2 * HOUR, 800.0, signal="marginal"), at=now)

    french = {zone["zone"]: zone for zone in client.get("/zones").json()["data"]}["FR"]

    assert (french["signal"], french["newest"]["gco2e_per_kwh"]) == ("marginal", 700.0)
    assert datetime.fromisoformat(french["forecast"]["until"]) == now + 3 * HOUR
    assert client.get("/zones/FR/forecast").json()["signal"] == "marginal"


def test_the_number_of_queries_does_not_depend_on_the_number_of_zones(
    app: FastAPI, client: TestClient, database: Database, now: datetime
) -> None:
    asked: list[str] = []

    @event.listens_for(app.state.context.database.engine, "before_cursor_execute")
    def record_statement(*call: Any) -> None:
        asked.append(call[2])

    client.get("/zones")  # the key's own note is written now and then
    asked.clear()
    client.get("/zones")
    before = len(asked)
    store_readings(database, *(reading(now, 100.0, zone=zone) for zone in ("DE", "FR", "GB")))
    store_forecast(database, reading(now, 99.0), at=now)
    asked.clear()
    client.get("/zones")

    assert len(asked) == before <= 5


def test_a_forecast_that_ends_in_the_past_is_null(client: TestClient, database: Database, now: datetime) -> None:
    store_readings(database, reading(now - 3 * HOUR, 56.0))
    store_forecast(database, reading(now - 2 * HOUR, 60.0), at=now - 2 * HOUR)

    [french] = [zone for zone in client.get("/zones").json()["data"] if zone["zone"] == "FR"]

    assert french["forecast"] is None
    assert client.get("/zones/FR/forecast").json()["data"] == []


def test_a_forecast_says_where_the_providers_part_ends_and_our_own_begins(
    client: TestClient, database: Database, now: datetime
) -> None:
    store_readings(database, reading(now - HOUR / 2, 56.0))
    expected = [
        reading(now + hour * HOUR, 60.0 + hour, source="uk" if hour < 3 else "own forecast", estimated=True)
        for hour in range(8)
    ]
    store_forecast(database, *expected, at=now)

    forecast = client.get("/zones/FR/forecast?hours=6").json()

    assert [hour["gco2e_per_kwh"] for hour in forecast["data"]] == [60, 61, 62, 63, 64, 65]
    assert [hour["source"] for hour in forecast["data"]] == ["uk"] * 3 + ["own forecast"] * 3
    assert datetime.fromisoformat(forecast["provider_until"]) == now + 3 * HOUR
    assert datetime.fromisoformat(forecast["until"]) == now + 6 * HOUR
    assert datetime.fromisoformat(forecast["made_at"]) == expected[5].fetched_at
    assert forecast["signal"] == "average"


@pytest.mark.parametrize("hours", ["0", "-1", "169", "nan", "many"])
def test_a_forecast_of_too_many_hours_is_refused(client: TestClient, hours: str) -> None:
    response = client.get(f"/zones/FR/forecast?hours={hours}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "hours"


def test_history_is_given_earliest_first_with_the_share_that_it_covers(
    client: TestClient, database: Database, now: datetime
) -> None:
    store_readings(database, *(reading(now - hours * HOUR, hours) for hours in (3, 2, 1, 30)))

    history = client.get("/zones/FR/history", params={"start": (now - 4 * HOUR).isoformat()}).json()

    assert [hour["gco2e_per_kwh"] for hour in history["data"]] == [3, 2, 1]
    assert history["covered_share"] == 0.75
    assert len(client.get("/zones/FR/history").json()["data"]) == 3
    assert client.get("/zones/DE/history").json()["data"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"start": "2026-11-24T00:00:00Z"}, "start"),
        ({"end": "2026-11-23T00:00:00"}, "end"),
        ({"end": "0001-01-01T00:00:00Z"}, "end"),
    ],
)
def test_an_invalid_time_range_of_history_is_refused(client: TestClient, query: dict[str, str], field: str) -> None:
    response = client.get("/zones/FR/history", params=query)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


def test_history_of_too_many_readings_is_refused(
    client: TestClient, database: Database, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.zones.endpoints.MAX_READINGS", 2)
    store_readings(database, *(reading(now - hours * HOUR, hours) for hours in (3, 2, 1)))

    response = client.get("/zones/FR/history")

    assert response.status_code == 422
    assert "3 readings" in response.json()["detail"]
