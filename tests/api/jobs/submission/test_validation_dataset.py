"""`validation_dataset`: a job is evaluated on another upload, which is kept while the job needs it."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from store.database import Database
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from tests.api.conftest import MODEL, NOW

PROMPTS = b'{"prompt": "2 + 2 =", "completion": " 4"}\n{"prompt": "3 + 3 =", "completion": " 6"}\n'
OTHERS = b'{"prompt": "4 + 4 =", "completion": " 8"}\n'
TEXTS = b'{"text": "Leaves are green."}\n'


def upload_rows(client: TestClient, content: bytes) -> str:
    response = client.post("/datasets", files={"file": ("rows.jsonl", content)})
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def submit_with(client: TestClient, validation: bytes | str, *, path: str = "/jobs", **hyperparameters: Any) -> Any:
    """Submit a job on two prompts, with these validation rows, or with a dataset's id."""
    dataset = upload_rows(client, PROMPTS)
    given = validation if isinstance(validation, str) else upload_rows(client, validation)
    body = {"model": MODEL, "dataset": dataset, "validation_dataset": given, "hyperparameters": hyperparameters}
    return client.post(path, json=body)


def fail_job(database: Database, job_id: str) -> None:
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        transition(session, job, JobStatus.FAILED, at=NOW)


def test_the_validation_dataset_replaces_the_share_that_is_held_out(alice: TestClient) -> None:
    validation = upload_rows(alice, OTHERS)
    response = submit_with(alice, validation)

    assert response.status_code == 201, response.text
    job = response.json()
    assert job["validation_dataset"] == validation
    assert job["hyperparameters"]["eval_share"] == 0.0
    assert alice.get(f"/jobs/{job['id']}").json()["validation_dataset"] == validation


def test_a_job_without_one_keeps_its_share(alice: TestClient) -> None:
    job = alice.post("/jobs", json={"model": MODEL, "dataset": upload_rows(alice, PROMPTS)}).json()

    assert job["validation_dataset"] is None
    assert job["hyperparameters"]["eval_share"] == 0.1


@pytest.mark.parametrize("path", ["/jobs", "/jobs/estimate"])
@pytest.mark.parametrize(
    ("validation", "hyperparameters", "field", "reason"),
    [
        (TEXTS, {}, "validation_dataset", "has rows of the form text, and the dataset has only prompt"),
        (PROMPTS + TEXTS, {}, "validation_dataset", "has rows of the form text"),
        ("dataset_0", {}, "validation_dataset", "there is no dataset 'dataset_0'"),
        (OTHERS, {"eval_share": 0.2}, "hyperparameters.eval_share", "expected one of them"),
    ],
)
def test_one_that_cannot_be_used_is_refused_with_its_field(
    alice: TestClient, path: str, validation: bytes | str, hyperparameters: dict[str, Any], field: str, reason: str
) -> None:
    response = submit_with(alice, validation, path=path, **hyperparameters)

    assert response.status_code == 422
    [error] = response.json()["errors"]
    assert error["field"] == field
    assert reason in error["message"]


def test_the_dataset_itself_and_another_users_are_refused(alice: TestClient, bob: TestClient) -> None:
    dataset = upload_rows(alice, PROMPTS)
    for given in (dataset, upload_rows(bob, OTHERS)):
        body = {"model": MODEL, "dataset": dataset, "validation_dataset": given}
        [error] = alice.post("/jobs", json=body).json()["errors"]
        assert error["field"] == "validation_dataset"


def test_an_eval_share_of_0_is_accepted_beside_it(alice: TestClient) -> None:
    assert submit_with(alice, OTHERS, eval_share=0).status_code == 201


def test_it_cannot_be_deleted_while_the_job_is_open_nor_the_job_be_retried_without_it(
    alice: TestClient, database: Database
) -> None:
    validation = upload_rows(alice, OTHERS)
    job_id = submit_with(alice, validation).json()["id"]

    refused = alice.delete(f"/datasets/{validation}")
    assert refused.status_code == 409
    assert job_id in refused.json()["detail"]

    fail_job(database, job_id)
    assert alice.delete(f"/datasets/{validation}").status_code == 204
    retried = alice.post(f"/jobs/{job_id}/retry")
    assert retried.status_code == 409
    assert f"its validation dataset {validation} was deleted" in retried.json()["detail"]
