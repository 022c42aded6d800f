"""Cancel, pause, resume and retry of a job by its owner."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from runtime.settings import Settings
from scheduler.settlement import settle_prices, store_counterfactuals
from store.database import Database
from store.lifecycle.leases import claim
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import Job
from tests.api.conftest import MODEL, NOW


@pytest.fixture
def queued_job_id(job_id: str, database: Database) -> str:
    with database.session() as session:
        transition(session, lock_job(database, session, job_id), JobStatus.QUEUED, at=NOW)
    return job_id


def lock_job(database: Database, session: Any, job_id: str) -> Job:
    job = JobRepository(session).lock(job_id)
    assert job is not None
    return job


def test_a_queued_job_is_paused_resumed_cancelled_and_retried(queued_job_id: str, client: TestClient) -> None:
    assert client.get(f"/jobs/{queued_job_id}").json()["actions"] == ["cancel", "pause"]
    path = [
        ("pause", "paused", ["cancel", "resume"]),
        ("resume", "queued", ["cancel", "pause"]),
        ("cancel", "cancelled", ["retry"]),
        ("retry", "validating", ["cancel"]),
    ]
    for action, status, actions in path:
        response = client.post(f"/jobs/{queued_job_id}/{action}")
        assert response.status_code == 202, response.text
        job = response.json()
        assert (job["status"], job["actions"]) == (status, actions)
        assert job == client.get(f"/jobs/{queued_job_id}").json()
    told = client.get(f"/jobs/{queued_job_id}/events").json()["data"][:4]
    assert [event["type"] for event in told] == ["job.validating", "job.cancelled", "job.queued", "job.paused"]
    assert {event["data"]["by"] for event in told} == {"ops"}


def test_a_running_job_continues_until_its_worker_receives_the_request(
    queued_job_id: str, client: TestClient, database: Database
) -> None:
    with database.session() as session:
        assert claim(session, queued_job_id, worker_id="w", device="cpu", at=NOW, lease_seconds=60)

    assert client.post(f"/jobs/{queued_job_id}/pause").json()["status"] == "pausing"
    assert client.post(f"/jobs/{queued_job_id}/cancel").json()["status"] == "cancelling"


@pytest.mark.parametrize("action", ["pause", "resume", "retry", "cancel"])
def test_an_action_that_the_status_does_not_allow_is_a_conflict(
    finished_job_id: str, client: TestClient, action: str
) -> None:
    response = client.post(f"/jobs/{finished_job_id}/{action}")

    assert response.status_code == 409
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == (f"cannot {action} {finished_job_id}: it is succeeded; possible actions: none")
    assert client.get(f"/jobs/{finished_job_id}").json()["status"] == "succeeded"


@pytest.mark.parametrize("action", ["pause", "resume", "retry", "cancel"])
def test_a_job_of_another_owner_accepts_no_action(alice: TestClient, bob: TestClient, action: str) -> None:
    uploaded = alice.post("/datasets", files={"file": ("rows.jsonl", b'{"text": "Leaves are green."}\n')}).json()
    job = alice.post("/jobs", json={"model": MODEL, "dataset": uploaded["id"]}).json()
    assert job["owner"] == "alice"

    assert bob.post(f"/jobs/{job['id']}/{action}").status_code == 404
    assert alice.get(f"/jobs/{job['id']}").json()["status"] == "validating"


def test_a_job_cancelled_before_it_ran_has_a_page_without_counterfactuals(
    job_id: str, client: TestClient, database: Database, settings: Settings
) -> None:
    client.post(f"/jobs/{job_id}/cancel")
    settle_prices(database, settings, at=NOW)
    store_counterfactuals(database, settings, at=NOW)

    job = client.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["reason"], job["finished_at"]) == (
        "cancelled",
        "cancelled by ops",
        "2026-11-23T12:00:00Z",
    )
    assert job["emissions_basis"] is job["counterfactuals"] is job["started_at"] is None
    page = client.get(f"/dashboard/jobs/{job_id}")
    assert page.status_code == 200
    assert "cancelled by ops" in page.text
    assert job_id in client.get("/").text
