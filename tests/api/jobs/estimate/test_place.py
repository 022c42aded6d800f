"""The place of an estimate: its zone, workers, queue and intensity, also where they are not known."""

from datetime import datetime
from typing import Any

from fastapi.testclient import TestClient

from greencore.clock import HOUR
from runtime.site import Site
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.jobs import JobRepository
from store.repositories.workers import WorkerRepository
from tests.api.conftest import NOW
from tests.api.jobs.estimate.staged import store_epochs, store_intensities, store_prepared_job


def test_without_a_worker_figures_are_assumed_with_wide_bounds(
    estimate: Any, database: Database, measured: None
) -> None:
    store_intensities(database, [300] * 24)

    found = estimate().json()

    assert found["pace"]["assumed"] is True
    assert found["pace"]["epoch_hours"]["high"] / found["pace"]["epoch_hours"]["expected"] > 9.9
    assert found["place"]["live_workers"] == 0
    assert "no worker is alive in FR: until one is, the job waits" in found["notes"]


def test_without_a_known_intensity_emissions_are_null(estimate: Any, client: TestClient, measured: None) -> None:
    context = client.app.state.context  # type: ignore[attr-defined]
    object.__setattr__(context, "settings", context.settings.model_copy(update={"zones": {"NOWHERE": "watttime"}}))

    found = estimate(zone="NOWHERE").json()

    assert found["now"]["emissions_gco2e"] is None
    assert found["now"]["energy_kwh"]["expected"] > 0
    assert found["saving"] is None
    assert found["place"]["basis"] == "no intensity of this zone is known: emissions are null"


def test_without_a_reading_the_yearly_mean_is_used(estimate: Any, measured: None) -> None:
    place = estimate().json()["place"]

    assert (place["step"], place["estimated"], place["expected_until"]) == ("static", True, None)
    assert "there is no forecast" in place["basis"]


def test_a_job_without_a_zone_is_estimated_in_the_cleanest_zone(
    estimate: Any, database: Database, measured: None
) -> None:
    store_intensities(database, [300] * 24, zone="FR")
    store_intensities(database, [40] * 24, zone="NO")
    with database.session() as session:
        for zone in ("FR", "NO"):
            WorkerRepository(session).record_heartbeat(f"worker_{zone}", site=Site(zone=zone), device="cpu", at=NOW)

    place = estimate(zone=None).json()["place"]

    assert place["zone"] == "NO"
    assert "the lowest of 2 zones" in place["reason"]


def test_the_start_is_delayed_by_jobs_ahead_in_the_queue(
    estimate: Any, database: Database, dataset_id: str, measured: None, worker: None
) -> None:
    store_epochs(database, store_prepared_job(database, dataset_id, hours=1.0), [1.0])
    first = store_prepared_job(
        database, dataset_id, hours=3.0, name="first", status=JobStatus.RUNNING, zone="FR", finished_at=None
    )
    with database.session() as session:
        JobRepository(session).get(first)

    queue = estimate().json()["queue"]

    assert (queue["running"], queue["ahead"]) == (1, 0)
    assert datetime.fromisoformat(queue["starts_at"]) == NOW + 3 * HOUR


def test_a_job_is_estimated_on_a_device_that_holds_it(estimate: Any, database: Database, measured: None) -> None:
    """Of 10^8 weights, each with gradient and moments, no step takes less than 1.6 GB."""
    store_intensities(database, [300] * 24, zone="FR")
    store_intensities(database, [40] * 24, zone="NO")
    with database.session() as session:
        for zone, size in (("FR", 2 * 10**9), ("NO", 10**9)):
            WorkerRepository(session).record_heartbeat(
                f"worker_{zone}", site=Site(zone=zone), device="cpu", memory_bytes=size, computes_bf16=False, at=NOW
            )
    assert estimate(zone=None).json()["place"]["zone"] == "FR"
    assert estimate(zone=None, method="lora").json()["place"]["zone"] == "NO"
    there = estimate(zone="NO").json()  # too small for the job, and alive
    assert there["place"]["live_workers"] == 1
    assert not any("no worker is alive" in note for note in there["notes"])
