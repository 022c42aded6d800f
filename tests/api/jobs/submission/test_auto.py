"""`POST /jobs` with the method auto: what is stored of it, and what its policy decides at once."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from greencore.clock import utc_now
from greencore.settings.hyperparameters import Hyperparameters
from store.database import Database
from store.repositories.jobs import JobRepository
from store.repositories.models import ModelRepository
from tests.api.conftest import MODEL, NOW
from tests.api.jobs.submission.submissions import error_fields

GIVEN = {"epochs": 2, "lora": {"rank": 4}}


def test_a_job_is_auto_until_it_is_prepared_and_keeps_what_was_given(client: TestClient, dataset_id: str) -> None:
    job = client.post("/jobs", json={"model": MODEL, "dataset": dataset_id, "hyperparameters": GIVEN}).json()
    assert (job["method"], job["method_requested"], job["method_reason"]) == ("auto", "auto", None)
    assert job["hyperparameters_requested"] == GIVEN
    assert job["hyperparameters"] == Hyperparameters.model_validate(GIVEN).model_dump(mode="json")


def test_a_job_with_a_method_has_asked_for_that(submit: Any) -> None:
    job = submit(method="full").json()
    assert (job["method_requested"], job["method_reason"], job["hyperparameters_requested"]) == ("full", None, None)


def test_settings_of_adaptive_backpropagation_name_the_method(client: TestClient, dataset_id: str) -> None:
    body = {"model": MODEL, "dataset": dataset_id, "hyperparameters": {"adaptive": {"reselect_every": 9}}}
    assert client.post("/jobs", json=body).json()["method_requested"] == "greentrainer"
    refused = client.post("/jobs", json={**body, "method": "auto"})
    assert error_fields(refused) == ["hyperparameters.adaptive"]
    assert "name greentrainer as the method, or leave them out" in refused.json()["errors"][0]["message"]


def test_the_chosen_method_is_shown_beside_what_was_asked_for(
    submit: Any, client: TestClient, database: Database
) -> None:
    job_id = submit(method="auto", hyperparameters=GIVEN).json()["id"]
    with database.session() as session:
        jobs = JobRepository(session)
        job = jobs.lock(job_id)
        assert job is not None
        chosen = Hyperparameters(max_steps=7, epochs=None).model_dump(mode="json")
        jobs.set_method(job, "full", hyperparameters=chosen, reason="it learned most", at=utc_now())
    found = client.get(f"/jobs/{job_id}").json()
    assert (found["method"], found["method_requested"], found["method_reason"]) == ("full", "auto", "it learned most")
    assert found["hyperparameters"]["max_steps"] == 7
    assert found["hyperparameters_requested"] == GIVEN
    [event] = [one for one in client.get(f"/jobs/{job_id}/events").json()["data"] if one["type"] == "method.chosen"]
    assert event["data"] == {"method": "full", "reason": "it learned most"}
    page = client.get(f"/dashboard/jobs/{job_id}", headers={"accept": "text/html"}).text
    assert "full, for auto" in page
    assert "Method full chosen: it learned most" in page


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        ({"kind": "constant", "rho": 0.1}, []),
        ({"kind": "budget", "budget_gco2e": 100.0, "rho_max": 1.0, "rho_min": 0.1}, ["policy.rho_min"]),
        ({"kind": "price", "gco2e_per_loss": 100.0, "rho_max": 1.0, "rho_min": 0.1}, ["policy.rho_min"]),
    ],
)
def test_the_floor_holds_where_the_policy_leaves_greentrainer_alone(
    submit: Any, database: Database, policy: dict[str, Any], fields: list[str]
) -> None:
    with database.session() as session:
        ModelRepository(session).put(MODEL, parameters=10**8, tensors=100, rho_floor=0.35, at=NOW)
    response = submit(method="auto", policy=policy)
    assert response.status_code == (422 if fields else 201)
    assert not fields or error_fields(response) == fields
