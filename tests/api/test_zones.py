"""`/zones/{zone}/intensity`: the newest reading, with its source and its age."""

from datetime import datetime, timedelta

from fastapi.testclient import TestClient

from greencore.carbon import Reading
from store.database import Database
from store.grid import GridRepository


def test_the_reading_in_force_is_given_with_its_source_and_its_age(
    client: TestClient, database: Database, now: datetime
) -> None:
    def reading(start: datetime, intensity: float) -> Reading:
        return Reading(
            zone="FR",
            start=start,
            end=start + timedelta(hours=1),
            gco2e_per_kwh=intensity,
            source="static",
            estimated=True,
            fetched_at=now,
        )

    with database.session() as session:
        GridRepository(session).put(
            [
                reading(now - timedelta(minutes=90), 40.0),
                reading(now - timedelta(minutes=30), 56.0),
                reading(now + timedelta(minutes=30), 70.0),
            ]
        )

    intensity = client.get("/zones/FR/intensity").json()

    assert intensity["gco2e_per_kwh"] == 56.0
    assert intensity["age_seconds"] == 1800
    assert (intensity["source"], intensity["signal"], intensity["estimated"]) == ("static", "average", True)
    assert datetime.fromisoformat(intensity["end"]) == now + timedelta(minutes=30)


def test_an_unknown_zone_is_not_found_and_the_known_ones_are_named(client: TestClient) -> None:
    response = client.get("/zones/XX/intensity")

    assert response.status_code == 404
    assert "FR" in response.json()["detail"]


def test_a_zone_that_has_no_reading_yet_asks_to_come_back(client: TestClient) -> None:
    response = client.get("/zones/FR/intensity")

    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) > 0
