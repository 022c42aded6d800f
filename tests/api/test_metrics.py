"""`/metrics`: the text is well formed, and its values are correct."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from sqlalchemy import delete, event, func

from api.main import create_app
from greencore.carbon import Reading
from greencore.clock import utc_now
from runtime.settings import Settings
from runtime.site import Site
from store.database import Database
from store.intensity.provider_health import ProviderRepository
from store.intensity.readings import GridRepository
from store.lifecycle.leases import claim
from store.lifecycle.status import JobStatus
from store.repositories.workers import WorkerRepository
from store.tables import Epoch, Job, Worker
from store.tables import Event as JobEvent
from tests.api.conftest import NOW, Submit, run_to_success

Labels = frozenset[tuple[str, str]]
SCRAPED = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}


def scrape(client: TestClient) -> dict[str, dict[Labels, float]]:
    """Return every sample by its name and labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    samples: dict[str, dict[Labels, float]] = {}
    for family in parse(answer.text):
        for sample in family.samples:
            values = samples.setdefault(sample.name, {})
            labels = frozenset(sample.labels.items())
            assert labels not in values, f"{sample.name}{sample.labels} is there twice"
            values[labels] = sample.value
    return samples


def label_set(**labels: str) -> Labels:
    return frozenset(labels.items())


def sum_samples(samples: Mapping[Labels, float], **labels: str) -> float:
    return sum(value for known, value in samples.items() if set(labels.items()) <= known)


def test_the_figures_of_jobs_are_those_of_the_database(
    client: TestClient, submit: Submit, finished_job_id: str, database: Database
) -> None:
    queued, running, second, unplaced = (submit(zone=zone).json()["id"] for zone in ("FR", "DE", "DE", None))
    with database.session() as session:
        for job_id in (queued, running, second, unplaced):
            job = session.get_one(Job, job_id)
            job.status, job.queued_at = JobStatus.QUEUED, func.now() - timedelta(minutes=5)
        session.flush()
        for job_id, rho in ((running, 0.5), (second, 0.8)):
            assert claim(session, job_id, worker_id="w", device="cpu", at=NOW, lease_seconds=60)
            session.get_one(Job, job_id).rho = rho
        session.get_one(Job, second).lease_expires_at = func.now() + timedelta(seconds=18)

    read = scrape(client)

    jobs = read["greentune_jobs"]
    assert jobs[label_set(zone="FR", status="queued")] == jobs[label_set(zone="FR", status="succeeded")] == 1
    assert jobs[label_set(zone="DE", status="running")] == 2
    assert jobs[label_set(zone="", status="queued")] == 1
    assert jobs[label_set(zone="GB", status="queued")] == 0
    assert sum(jobs.values()) == 5
    assert read["greentune_oldest_waiting_job_age_seconds"][label_set(zone="FR", status="queued")] == pytest.approx(
        300, abs=9
    )
    assert read["greentune_job_rho"] == {label_set(zone="DE"): pytest.approx(0.65)}
    assert read["greentune_lease_age_seconds"] == {label_set(zone="DE"): pytest.approx(42, abs=9)}


def test_the_energy_never_falls_and_the_emissions_follow_their_price(
    client: TestClient, submit: Submit, finished_job_id: str, database: Database, settings: Settings
) -> None:
    before = scrape(client)
    assert before["greentune_energy_kwh_total"] == {
        label_set(zone="FR", component="cpu"): 0.0005,
        label_set(zone="FR", component="gpu"): 0.0,
        label_set(zone="FR", component="ram"): 0.0001,
    }
    with database.session() as session:
        emitted = session.get_one(Job, finished_job_id).emissions_gco2e
    assert before["greentune_emissions_gco2e"][label_set(zone="FR")] == pytest.approx(emitted)

    run_to_success(database, settings, submit(zone="FR").json()["id"])
    with database.session() as session:
        for table in (JobEvent, Epoch):
            session.execute(delete(table).where(table.job_id == finished_job_id))
        session.execute(delete(Job).where(Job.id == finished_job_id))

    after = scrape(client)["greentune_energy_kwh_total"]
    assert after[label_set(zone="FR", component="cpu")] == pytest.approx(0.001)


def test_the_grid_its_sources_and_the_workers_have_metrics(client: TestClient, database: Database) -> None:
    now = utc_now()
    readings = [
        Reading(
            zone="FR",
            start=now - timedelta(minutes=minutes),
            end=now - timedelta(minutes=minutes - 30),
            gco2e_per_kwh=gco2e,
            source="trace (synthetic)",
            fetched_at=now,
        )
        for minutes, gco2e in ((70, 80.0), (10, 56.0), (-20, 99.0))
    ]
    with database.session() as session:
        GridRepository(session).put(readings)
        for _ in range(3):
            ProviderRepository(session).record_failure("FR", "uk", at=now, error="timed out")
        ProviderRepository(session).record_success("FR", "uk", at=now)
        workers = WorkerRepository(session)
        workers.record_heartbeat("worker_1", site=Site(zone="FR"), gpus=4)
        workers.record_heartbeat("worker_2", site=Site(zone="FR"))
        workers.record_heartbeat("worker_3", site=Site(zone="DE"))
        workers.record_heartbeat("scheduler_1", role="scheduler")
        session.flush()
        session.get_one(Worker, "worker_2").last_seen_at = now - timedelta(minutes=5)

    read = scrape(client)

    labels = label_set(zone="FR", source="trace", signal="average")
    assert read["greentune_carbon_intensity_gco2e_per_kwh"] == {labels: 56.0}
    assert read["greentune_carbon_intensity_age_seconds"] == {labels: pytest.approx(600, abs=9)}
    assert read["greentune_provider_failures_total"] == {label_set(zone="FR"): 3}
    assert read["greentune_provider_consecutive_failures"] == {label_set(zone="FR"): 0}
    assert read["greentune_workers"][label_set(zone="FR", role="train")] == 1
    assert read["greentune_workers"][label_set(zone="GB", role="train")] == 0
    assert read["greentune_workers"][label_set(zone="", role="scheduler")] == 1
    assert read["greentune_workers"][label_set(zone="", role="prepare")] == 0
    assert read["greentune_workers_silent"][label_set(zone="FR", role="train")] == 1
    assert [read["greentune_gpus"][label_set(zone=zone)] for zone in ("DE", "FR", "GB")] == [1, 4, 0]
    assert read["greentune_gpus_busy"][label_set(zone="FR")] == 0
    silence = read["greentune_worker_heartbeat_age_seconds"]
    assert silence[label_set(zone="FR", role="train")] == pytest.approx(300, abs=9)
    assert silence[label_set(zone="DE", role="train")] == pytest.approx(0, abs=9)


def test_requests_are_counted_by_route_and_never_by_client_input(
    client: TestClient, anonymous: TestClient, job_id: str
) -> None:
    for number in range(3):
        client.get(f"/jobs/job_{number}")
        client.get(f"/nothing/{number}")
        client.request("BREW", f"/pots/{number}")
        anonymous.get(f"/jobs/{number}")
    client.get(f"/jobs/{job_id}")

    read = scrape(client)

    counts = read["greentune_http_request_duration_seconds_count"]
    assert counts[label_set(method="GET", route="/jobs/{job_id}", status="4xx")] == 3
    assert counts[label_set(method="GET", route="/jobs/{job_id}", status="2xx")] == 1
    assert counts[label_set(method="POST", route="/jobs", status="2xx")] == 1
    assert counts[label_set(method="GET", route="unrouted", status="4xx")] == 6
    assert counts[label_set(method="other", route="unrouted", status="4xx")] == 3
    assert read["greentune_http_requests_in_flight"] == {label_set(): 1}, "the scrape itself"
    assert read["greentune_event_streams"] == {label_set(): 0}


def test_a_server_error_is_counted(settings: Settings, operator_key: str) -> None:
    app = create_app(settings)

    @app.get("/broken")
    def fail() -> None:
        raise RuntimeError

    with TestClient(app, headers={"Authorization": f"Bearer {operator_key}"}, raise_server_exceptions=False) as client:
        assert client.get("/broken").status_code == 500
        read = scrape(client)
    assert (
        read["greentune_http_request_duration_seconds_count"][label_set(method="GET", route="/broken", status="5xx")]
        == 1
    )
    assert read["greentune_http_requests_in_flight"] == {label_set(): 1}


def test_openmetrics_is_returned_if_requested(client: TestClient, finished_job_id: str) -> None:
    answer = client.get("/metrics", headers=SCRAPED)

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    types = {family.name: family.type for family in parse_openmetrics(answer.text)}
    assert types["greentune_energy_kwh"] == types["greentune_provider_failures"] == "counter"
    assert types["greentune_emissions_gco2e"] == "gauge", "a settled price may be lower"
    assert all(name.startswith("greentune_") for name in types)


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text;version=abc", "text/plain;version=x;escaping=y", "*/*", ""]
)
def test_an_unusual_accept_header_is_accepted(client: TestClient, accept: str) -> None:
    assert client.get("/metrics", headers={"Accept": accept}).status_code == 200


def test_the_number_of_queries_does_not_depend_on_the_numbers_of_jobs_and_zones(
    app: FastAPI, client: TestClient, submit: Submit
) -> None:
    statements: list[str] = []

    def record_statement(*arguments: Any) -> None:
        statements.append(arguments[2])

    engine = app.state.context.database.engine
    scrape(client)
    event.listen(engine, "before_cursor_execute", record_statement)
    scrape(client)
    few = len(statements)
    for zone in ("FR", "DE", "GB"):
        submit(zone=zone)
    statements.clear()
    scrape(client)

    assert len(statements) == few <= 8


def test_metrics_are_for_operators(alice: TestClient, anonymous: TestClient) -> None:
    assert alice.get("/metrics").status_code == 403
    assert anonymous.get("/metrics").status_code == 401
