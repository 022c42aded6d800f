"""`POST /jobs/estimate`: what it takes, and what it refuses."""

from typing import Any

from fastapi.testclient import TestClient


def test_the_name_of_a_run_does_not_matter(estimate: Any, measured: None, worker: None) -> None:
    plain, named = estimate(), estimate(name="Tickets, 3rd try")
    assert (plain.status_code, named.status_code) == (200, 200), named.text
    assert named.json() == plain.json()


def test_an_estimate_queues_no_job(estimate: Any, client: TestClient, measured: None) -> None:
    assert estimate().status_code == 200
    assert client.get("/jobs").json()["data"] == []


def test_a_model_that_is_not_measured_yet_is_a_conflict(estimate: Any) -> None:
    response = estimate()

    assert response.status_code == 409
    assert "not measured yet" in response.json()["detail"]


def test_a_submissions_faults_are_reported_for_an_estimate_too(estimate: Any, measured: None) -> None:
    response = estimate(zone="XX", model="none", policy={"kind": "constant", "rho": 0.2}, method="bitfit")

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == ["model", "zone"]
    assert estimate(method="bitfit").json()["errors"][0]["field"] == "method"


def test_an_estimate_takes_the_gpus_of_a_submission(estimate: Any, measured: None, worker: None) -> None:
    several, open_number = (estimate(resources={"gpus": gpus}) for gpus in (4, "auto"))
    assert (several.status_code, open_number.status_code) == (200, 200), several.text
    assert any("no worker with 4 GPUs is alive" in note for note in several.json()["notes"])
    assert any("how many GPUs hold it" in note for note in open_number.json()["notes"])
    assert estimate(resources={"gpus": 65}).status_code == 422
