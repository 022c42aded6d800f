"""`POST /jobs`: the GPUs that a job asks for."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from runtime.site import Site
from store.database import Database
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.repositories.models import ModelRepository
from store.repositories.workers import WorkerRepository
from tests.api.conftest import MODEL, NOW
from tests.api.jobs.submission.submissions import error_fields, error_message


@pytest.mark.parametrize(("asked", "stored", "shown"), [(None, (1, 1), 1), (4, (4, 4), 4), ("auto", (None, 1), None)])
def test_a_job_keeps_what_it_asked_for(
    submit: Any, client: TestClient, database: Database, asked: Any, stored: tuple[int | None, int], shown: int | None
) -> None:
    answer = submit(**({} if asked is None else {"resources": {"gpus": asked}}))
    assert answer.status_code == 201, answer.text
    assert (answer.json()["resources"], answer.json()["gpus"]) == ({"gpus": asked or 1}, shown)
    with database.session() as session:
        job = JobRepository(session).lock(answer.json()["id"])
        assert job is not None
        assert (job.gpus_asked, job.gpus) == stored
        job.gpus, job.estimate = 2, {"full_flops": 1e9}
        transition(session, job, JobStatus.QUEUED, at=NOW)
    assert client.get(f"/jobs/{answer.json()['id']}").json()["gpus"] == 2


def test_a_job_that_was_cancelled_before_its_gpus_were_chosen_has_none(submit: Any, client: TestClient) -> None:
    job_id = submit(resources={"gpus": "auto"}).json()["id"]
    client.post(f"/jobs/{job_id}/cancel").raise_for_status()
    assert client.get(f"/jobs/{job_id}").json()["gpus"] is None
    assert "the fewest that hold it" not in client.get(f"/dashboard/jobs/{job_id}").text


@pytest.mark.parametrize("gpus", [0, 65, -1, 1.5, "two", True, None, [2]])
def test_a_number_of_gpus_that_no_machine_has_is_refused(submit: Any, gpus: Any) -> None:
    answer = submit(resources={"gpus": gpus})
    assert answer.status_code == 422
    assert {field.partition("[")[0] for field in error_fields(answer)} == {"resources.gpus"}


def test_other_resources_are_refused(submit: Any) -> None:
    assert error_fields(submit(resources={"gpu": 2})) == ["resources.gpu"]


@pytest.mark.parametrize(("name", "value"), [("optimizer", "adafactor"), ("micro_batch_size", "auto")])
def test_what_several_processes_do_not_support_is_refused_on_several_gpus(submit: Any, name: str, value: str) -> None:
    refused = submit(resources={"gpus": 2}, hyperparameters={name: value})
    assert error_fields(refused) == [f"hyperparameters.{name}"]
    assert error_message(refused)
    for gpus in (1, "auto"):
        assert submit(resources={"gpus": gpus}, hyperparameters={name: value}).status_code == 201


def test_an_open_number_is_refused_only_where_no_number_would_do(submit: Any, database: Database) -> None:
    def add_worker(name: str, gpus: int, memory_bytes: int) -> None:
        with database.session() as session:
            WorkerRepository(session).record_heartbeat(
                name, site=Site(zone="FR"), device="NVIDIA", memory_bytes=memory_bytes, computes_bf16=True, gpus=gpus
            )

    with database.session() as session:
        ModelRepository(session).put(MODEL, parameters=10**9, tensors=100, rho_floor=0.35, at=NOW)
    job = {"method": "full", "resources": {"gpus": "auto"}}
    add_worker("small", gpus=4, memory_bytes=10**9)
    refused = submit(**job)
    assert error_fields(refused) == ["model"]
    assert "alone take in each of 4 processes 4 of 1 GB" in error_message(refused)
    add_worker("large", gpus=1, memory_bytes=10**11)
    assert submit(**job).status_code == 201


def test_a_worker_with_too_few_gpus_is_no_processor(submit: Any, database: Database) -> None:
    with database.session() as session:
        WorkerRepository(session).record_heartbeat("gpu", site=Site(zone="FR"), device="NVIDIA H200", gpus=1)
    assert submit(resources={"gpus": 4}, hyperparameters={"attention": "flash"}).status_code == 201
