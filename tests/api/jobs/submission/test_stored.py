"""`POST /jobs`: submissions that are stored, as they were sent."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from api.main import create_app
from greencore.settings.hyperparameters import Hyperparameters
from runtime.settings import Settings
from store.database import WAKE_CHANNEL, Database
from store.lifecycle.status import JobStatus
from store.repositories.jobs import JobRepository, get_job_policy
from store.tables import Model
from tests.api.conftest import MODEL, NOW
from tests.api.jobs.submission.submissions import STEPS
from tests.keys import bearer


def test_a_job_is_stored_as_validating_and_found_at_its_location(submit: Any, client: TestClient) -> None:
    response = submit()

    assert response.status_code == 201
    assert client.get(response.headers["location"]).json() == response.json()
    job = response.json()
    assert job["status"] == "validating"
    assert job["id"].startswith("job_")
    assert (job["method"], job["method_requested"]) == ("greentrainer", "greentrainer")
    unknown = {"steps": None, "micro_batch_size": None}
    assert job["progress"] == {"epochs": 3, "epochs_done": 0, "steps_done": 0, "share": 0, **unknown}


def test_the_default_policy_is_the_constant_that_the_paper_advises(submit: Any) -> None:
    policy = submit().json()["policy"]

    assert (policy["kind"], policy["rho"], policy["on_missing"]) == ("constant", 0.6, "fallback")
    assert policy["gate"]["mode"] == "none"


def test_all_submitted_fields_are_returned(submit: Any, now: datetime) -> None:
    deadline = now + timedelta(hours=8)

    job = submit(
        method="full",
        policy=STEPS,
        zone="FR",
        deadline=deadline.isoformat(),
        priority=7,
        hyperparameters={"epochs": 5, "seed": 3, "sample_prompt": "Hello"},
        metadata={"team": "speech"},
    ).json()

    assert job["method"] == "full"
    assert job["policy"]["steps"] == STEPS["steps"]
    assert job["zone"] == "FR"
    assert datetime.fromisoformat(job["deadline"]) == deadline
    assert job["priority"] == 7
    assert job["progress"]["epochs"] == 5
    given = Hyperparameters(epochs=5, seed=3, sample_prompt="Hello")
    assert job["hyperparameters"] == given.model_dump(mode="json")
    assert job["metadata"] == {"team": "speech"}


def test_a_submission_wakes_the_scheduler(submit: Any, database: Database) -> None:
    with database.engine.connect() as connection:
        connection.execute(text(f"LISTEN {WAKE_CHANNEL}"))
        connection.commit()

        submit()

        driver = connection.connection.driver_connection
        assert driver is not None
        assert len(list(driver.notifies(timeout=5, stop_after=1))) == 1


def test_a_job_is_accepted_while_redis_is_down(settings: Settings, dataset_id: str, operator_key: str) -> None:
    without_redis = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with TestClient(create_app(without_redis), headers=bearer(operator_key)) as client:
        response = client.post("/jobs", json={"model": "SmolLM2-135M-Instruct", "dataset": dataset_id})

    assert response.status_code == 201


def test_a_stored_policy_is_resolved_by_name_and_kept_as_a_snapshot(submit: Any, client: TestClient) -> None:
    client.post("/policies", json={"name": "careful", "policy": {"kind": "constant", "rho": 0.5}})
    job = submit(policy="careful").json()
    client.post("/policies", json={"name": "careful", "policy": {"kind": "constant", "rho": 0.9}})

    assert client.get(f"/jobs/{job['id']}").json()["policy"]["rho"] == 0.5
    assert job["policy_name"] == "careful"
    assert submit(policy="careful").json()["policy"]["rho"] == 0.9


@pytest.mark.parametrize(
    "policy",
    [
        STEPS,
        {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4},
        {"kind": "percentile", "window_hours": 168, "gamma": 1.0, "rho_max": 1.0, "rho_min": 0.4},
        {"kind": "budget", "budget_gco2e": 500, "rho_max": 1.0, "rho_min": 0.4},
        {"kind": "price", "gco2e_per_loss": 50, "rho_max": 1.0, "rho_min": 0.4},
    ],
    ids=lambda policy: policy["kind"],
)
@pytest.mark.parametrize("gate", [{"mode": "defer"}, {"mode": "pause", "pause_above": 450, "resume_below": 400}])
def test_every_policy_kind_is_accepted_with_each_gate_and_stored_with_its_defaults(
    submit: Any, policy: dict[str, Any], gate: dict[str, Any]
) -> None:
    response = submit(policy={**policy, "gate": gate})

    assert response.status_code == 201, response.text
    kept = response.json()["policy"]
    assert kept.items() >= policy.items()
    assert kept["gate"] == {"min_saving": 0.05, "max_delay_hours": 24, **gate}
    assert kept["smoothing"]["min_epochs"] == 1


def test_a_deadline_before_the_expected_end_is_accepted(submit: Any, now: datetime) -> None:
    assert submit(deadline=(now + timedelta(seconds=1)).isoformat()).status_code == 201


@pytest.mark.parametrize("method", ["lora", "prefix", "top2", "bitfit"])
def test_a_method_without_a_rho_is_accepted_with_any_policy(submit: Any, method: str, database: Database) -> None:
    with database.session() as session:
        session.add(Model(name=MODEL, parameters=1, tensors=1, rho_floor=0.5, costs=None, measured_at=NOW))
    response = submit(method=method, policy={"kind": "constant", "rho": 0.1, "gate": {"mode": "defer"}})

    assert response.status_code == 201
    assert response.json()["method"] == method
    with database.session() as session:
        [job] = JobRepository(session).page(limit=1).data
    policy = get_job_policy(job)
    assert (policy.lowest_rho()[1], policy.gate.mode) == (1.0, "defer")


def test_an_accepted_submission_is_committed_before_it_is_answered(submit: Any, database: Database) -> None:
    job_id = submit().json()["id"]

    with database.session() as session:
        job = JobRepository(session).get(job_id)
        assert job is not None
        assert job.status is JobStatus.VALIDATING
