"""Reading of jobs, their epochs, events and results."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from store.database import Database
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import Evaluation, Job
from tests.api.conftest import NOW


def ids(response: Any) -> list[str]:
    """Return the ids of a list, in its order."""
    assert response.status_code == 200, response.text
    return [item["id"] for item in response.json()["data"]]


def test_jobs_are_listed_newest_first_and_page_by_page(submit: Any, client: TestClient) -> None:
    first, second, third = (submit().json()["id"] for _ in range(3))

    page = client.get("/jobs", params={"limit": 2})
    assert ids(page) == [third, second]
    assert page.json()["has_more"] is True

    page = client.get("/jobs", params={"limit": 2, "after": second})
    assert ids(page) == [first]
    assert page.json()["has_more"] is False


def test_jobs_are_filtered_by_zone_status_and_metadata(submit: Any, client: TestClient, database: Database) -> None:
    french = submit(zone="FR", metadata={"team": "speech", "run": "1"}).json()["id"]
    german = submit(zone="DE", metadata={"team": "vision"}).json()["id"]
    with database.session() as session:
        job = JobRepository(session).lock(german)
        assert job is not None
        transition(session, job, JobStatus.QUEUED, at=job.created_at)

    assert ids(client.get("/jobs?zone=FR")) == [french]
    assert ids(client.get("/jobs?status=queued")) == [german]
    assert ids(client.get("/jobs?metadata[team]=speech&metadata[run]=1")) == [french]
    assert ids(client.get("/jobs?metadata[team]=speech&metadata[run]=2")) == []


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "status=asleep"])
def test_an_invalid_query_parameter_is_refused_by_name(client: TestClient, query: str) -> None:
    response = client.get(f"/jobs?{query}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == query.partition("=")[0]


@pytest.mark.parametrize("path", ["", "/epochs", "/events", "/artifacts", "/artifacts/model.safetensors"])
def test_an_unknown_job_is_not_found(client: TestClient, path: str) -> None:
    response = client.get(f"/jobs/job_0{path}")

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert "job_0" in response.json()["detail"]


def test_a_character_that_postgresql_cannot_store_is_a_client_error(client: TestClient) -> None:
    assert client.get("/jobs/%00").status_code == 422
    assert client.get("/jobs?metadata[a]=%00").status_code == 422


def test_a_finished_job_shows_its_progress_its_cost_and_the_basis_of_the_cost(
    finished_job_id: str, client: TestClient
) -> None:
    job = client.get(f"/jobs/{finished_job_id}").json()

    assert job["status"] == "succeeded"
    assert job["progress"]["share"] == 1
    assert job["rho"] == 0.6
    assert job["energy_kwh"] == pytest.approx(0.0006)
    assert job["emissions_gco2e"] == pytest.approx(0.0006 * 1.2 * 212)
    assert job["emissions_basis"] == {
        "status": "provisional",
        "settled_gco2e": 0,
        "pue": pytest.approx(1.2),
        "estimated": True,
        "sources": ["trace (synthetic)"],
        "unpriced_kwh": 0,
        "energy_methods": {"cpu": ["TDP estimate"], "gpu": ["none"], "ram": ["capacity estimate"]},
        "energy_estimated": True,
        "evaluation_kwh": 0,
        "lost_kwh": 0,
        "tracker_kwh": 0.00062,
    }
    assert job["evaluation"]["eval_loss"] == {"before": 2.5, "after": 1.2}
    assert job["evaluation"]["rouge"] == {"after": {"rougeL": None}}
    assert client.get(job["links"]["epochs"]).status_code == 200


def test_a_final_price_is_settled_and_replaces_the_provisional_one(settled_job_id: str, client: TestClient) -> None:
    job = client.get(f"/jobs/{settled_job_id}").json()

    assert job["emissions_gco2e"] == pytest.approx(0.0006 * 1.2 * 200)
    basis = job["emissions_basis"]
    assert basis["status"] == "settled"
    assert basis["settled_gco2e"] == job["emissions_gco2e"]
    assert (basis["estimated"], basis["sources"]) == (False, ["uk"])
    assert basis["energy_estimated"] is True


def test_savings_are_shown_in_two_parts_beside_the_counterfactuals(settled_job_id: str, client: TestClient) -> None:
    job = client.get(f"/jobs/{settled_job_id}").json()

    others = job["counterfactuals"]
    assert sorted(others) == ["constant_now", "full_now", "oracle"]
    for other in others.values():
        assert other["estimated"] is True
        assert other["assumption"]
    full = others["full_now"]
    assert full["energy_kwh"] == pytest.approx(0.0006 / 0.58)
    assert job["less_work_saving"] == pytest.approx(0.42)
    whole = (full["emissions_gco2e"] - job["emissions_gco2e"]) / full["emissions_gco2e"]
    assert job["less_work_saving"] + job["moved_in_time_saving"] == pytest.approx(whole)


def test_an_unfinished_job_has_no_counterfactuals(job_id: str, client: TestClient) -> None:
    job = client.get(f"/jobs/{job_id}").json()

    assert job["counterfactuals"] is job["less_work_saving"] is job["moved_in_time_saving"] is None
    assert job["emissions_basis"] is job["gate"] is None


def test_missing_counterfactuals_have_a_reason(finished_job_id: str, client: TestClient, database: Database) -> None:
    with database.session() as session:
        job = JobRepository(session).lock(finished_job_id)
        assert job is not None
        job.counterfactuals = {"missing": "no epoch was finished"}

    shown = client.get(f"/jobs/{finished_job_id}").json()

    assert shown["counterfactuals"] is None
    assert shown["counterfactuals_missing"] == "no epoch was finished"


def test_a_waiting_job_shows_its_last_gate_decision_and_the_time_of_the_next(
    deferred_job_id: str, client: TestClient, now: datetime
) -> None:
    job = client.get(f"/jobs/{deferred_job_id}").json()

    assert job["status"] == "deferred"
    gate = job["gate"]
    assert (gate["opens"], gate["forced"], gate["basis"]) == (False, False, "its own epochs")
    assert now + timedelta(hours=2) < datetime.fromisoformat(gate["until"]) <= now + timedelta(hours=3.5)
    assert gate["saving"] > 0.5
    assert gate["reason"] == job["reason"]
    assert datetime.fromisoformat(gate["at"]) == now
    assert datetime.fromisoformat(gate["deadline"]) == now + timedelta(hours=12.5)
    assert now < datetime.fromisoformat(job["not_before"]) <= now + timedelta(hours=1)
    assert (job["signal"], job["deadline"]) == ("average", None)


def test_an_epoch_shows_its_decision_its_reason_and_its_cost(finished_job_id: str, client: TestClient) -> None:
    listing = client.get(f"/jobs/{finished_job_id}/epochs").json()

    assert listing["has_more"] is False
    [epoch] = listing["data"]
    assert epoch["rho_asked"] == 0.6
    assert epoch["rho_reached"] == 0.58
    assert epoch["tensors"] == ["lm_head.weight", "norm.weight"]
    assert epoch["intensity"] == {
        "gco2e_per_kwh": 212,
        "source": "trace (synthetic)",
        "step": "fresh",
        "age_seconds": 1800,
        "estimated": True,
    }
    assert "212 gCO2e/kWh" in epoch["reason"]
    assert epoch["energy"]["cpu_kwh"] == 0.0005
    assert epoch["energy"]["total_kwh"] == pytest.approx(0.0006)
    assert epoch["energy"]["methods"]["cpu"] == "TDP estimate"
    assert epoch["emissions_gco2e"] == pytest.approx(0.0006 * 1.2 * 212)


def test_a_loss_that_is_not_a_number_is_null_rather_than_broken_json(finished_job_id: str, client: TestClient) -> None:
    assert client.get(f"/jobs/{finished_job_id}/epochs").json()["data"][0]["eval_loss"] is None


def test_events_are_listed_newest_first_and_page_by_page(finished_job_id: str, client: TestClient) -> None:
    page = client.get(f"/jobs/{finished_job_id}/events", params={"limit": 2}).json()
    assert [event["type"] for event in page["data"]] == ["job.succeeded", "epoch.finished"]
    assert page["has_more"] is True

    rest = client.get(f"/jobs/{finished_job_id}/events", params={"after": page["data"][-1]["id"]}).json()
    assert [event["type"] for event in rest["data"]] == [
        "epoch.started",
        "job.running",
        "job.queued",
        "job.submitted",
    ]


def test_a_recorded_artifact_is_downloaded_as_a_file(finished_job_id: str, client: TestClient) -> None:
    artifacts = client.get(f"/jobs/{finished_job_id}/artifacts").json()["data"]
    assert [artifact["name"] for artifact in artifacts] == ["lost.json", "model.safetensors"]

    response = client.get(artifacts[1]["link"])

    assert response.content == b"weights"
    assert response.headers["content-type"] == "application/octet-stream"
    assert 'filename="model.safetensors"' in response.headers["content-disposition"]


@pytest.mark.parametrize("name", ["notes.txt", "%2e%2e%2f%2e%2e%2fsecret", "lost.json"])
def test_only_recorded_and_existing_files_are_served(finished_job_id: str, client: TestClient, name: str) -> None:
    response = client.get(f"/jobs/{finished_job_id}/artifacts/{name}")

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_evaluations_are_listed_in_order_with_the_best_marked(
    job_id: str, client: TestClient, database: Database
) -> None:
    with database.session() as session:
        job = session.get_one(Job, job_id)
        job.best = {"step": 8, "epoch": 1.0, "loss": 2.25}
        for step, loss in ((12, 2.5), (4, 3.0), (8, 2.25)):
            rouge = {"rouge1": 50.0, "rouge2": 25.0, "rouge_l": 40.0, "rouge_rows": 16} if step == 8 else {}
            row = Evaluation(job_id=job_id, step=step, epoch=step / 8, at=NOW, loss=loss, energy_kwh=0.001, **rouge)
            session.add(row)

    job = client.get(f"/jobs/{job_id}").json()
    assert job["best"] == {"step": 8, "epoch": 1.0, "loss": 2.25}
    first = client.get(job["links"]["evaluations"], params={"limit": 2}).json()
    assert [(row["step"], row["best"]) for row in first["data"]] == [(4, False), (8, True)]
    assert first["has_more"]
    assert first["data"][0]["rouge"] is None
    assert first["data"][1]["rouge"] == {"rouge1": 50.0, "rouge2": 25.0, "rouge_l": 40.0, "rows": 16}
    rest = client.get(job["links"]["evaluations"], params={"after": 8}).json()
    assert [row["step"] for row in rest["data"]] == [12]
