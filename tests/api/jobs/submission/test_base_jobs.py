"""`model` as a finished job, whose result is trained further."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from runtime.settings import Settings
from scheduler.retention import remove_old_files
from store.database import Database, lock_row
from store.lifecycle.status import JobStatus
from store.repositories.lineage import MAX_LINEAGE, LineageRepository
from store.tables import Artifact, Job
from tests.api.conftest import MODEL, NOW, run_to_success

ROWS = b'{"prompt": "2 + 2 =", "completion": " 4"}\n{"prompt": "3 + 3 =", "completion": " 6"}\n'


@pytest.fixture
def dataset(alice: TestClient) -> str:
    return str(alice.post("/datasets", files={"file": ("rows.jsonl", ROWS)}).json()["id"])


@pytest.fixture
def base(alice: TestClient, dataset: str, database: Database, settings: Settings) -> str:
    """A job of alice that has succeeded with a whole model as its result."""
    return add_finished(alice, database, settings, model=MODEL, dataset=dataset)


def add_finished(client: TestClient, database: Database, settings: Settings, *, whole: bool = True, **body: Any) -> str:
    response = client.post("/jobs", json={"zone": "FR", **body})
    assert response.status_code == 201, response.text
    job_id = str(response.json()["id"])
    run_to_success(database, settings, job_id)
    if whole:
        with database.session() as session:
            session.add(Artifact(job_id=job_id, name="config.json", bytes=2, sha256="0", created_at=NOW))
    return job_id


def change(database: Database, job_id: str, **columns: Any) -> None:
    with database.session() as session:
        job = session.get_one(Job, job_id)
        for name, value in columns.items():
            setattr(job, name, value)


def refusal(response: Any) -> str:
    assert response.status_code == 422, response.text
    [error] = response.json()["errors"]
    assert error["field"] == "model"
    return str(error["message"])


def test_a_job_starts_from_the_result_of_a_finished_job(alice: TestClient, dataset: str, base: str) -> None:
    response = alice.post("/jobs", json={"model": base, "dataset": dataset})
    assert response.status_code == 201, response.text
    job = response.json()
    assert (job["model"], job["base_job"]) == (MODEL, base)
    assert alice.get(f"/jobs/{base}").json()["base_job"] is None
    assert f'trained further from <a href="/dashboard/jobs/{base}">' in alice.get(f"/dashboard/jobs/{job['id']}").text


def test_the_form_starts_with_a_finished_job_or_with_that_of_a_copied_one(
    alice: TestClient, dataset: str, base: str
) -> None:
    assert f'href="/dashboard/submit?model={base}"' in alice.get(f"/dashboard/jobs/{base}").text
    form = alice.get(f"/dashboard/submit?model={base}").text
    assert f'<option value="{base}"' in form
    copied = alice.post("/jobs", json={"model": base, "dataset": dataset}).json()["id"]
    assert f'<option value="{base}"' in alice.get(f"/dashboard/submit?from={copied}").text
    assert alice.get("/dashboard/submit?model=job_unknown").status_code == 404


@pytest.mark.parametrize("path", ["/jobs", "/jobs/estimate"])
def test_a_job_that_has_not_succeeded_is_refused(
    alice: TestClient, dataset: str, base: str, database: Database, path: str
) -> None:
    for status, reason in (
        (JobStatus.RUNNING, "is running: its result can be used once it has succeeded"),
        (JobStatus.FAILED, "is failed, so it has no result"),
    ):
        change(database, base, status=status)
        assert refusal(alice.post(path, json={"model": base, "dataset": dataset})) == f"{base} {reason}"


def test_a_job_of_another_owner_is_as_if_it_did_not_exist(bob: TestClient, base: str) -> None:
    dataset = bob.post("/datasets", files={"file": ("rows.jsonl", ROWS)}).json()["id"]
    given = [refusal(bob.post("/jobs", json={"model": name, "dataset": dataset})) for name in (base, "job_unknown")]
    assert given == [f"there is no job {base!r}", "there is no job 'job_unknown'"]


def test_a_job_of_another_owner_is_not_locked(bob: TestClient, base: str, database: Database) -> None:
    dataset = bob.post("/datasets", files={"file": ("rows.jsonl", ROWS)}).json()["id"]
    with ThreadPoolExecutor(max_workers=1) as pool, database.session() as session:
        assert lock_row(session, select(Job).where(Job.id == base)) is not None
        answer = pool.submit(bob.post, "/jobs", json={"model": base, "dataset": dataset}).result(timeout=30)
    assert refusal(answer) == f"there is no job {base!r}"


def test_a_prefix_cannot_be_trained_further(alice: TestClient, dataset: str, base: str, database: Database) -> None:
    change(database, base, method="prefix")
    assert "has trained a prefix" in refusal(alice.post("/jobs", json={"model": base, "dataset": dataset}))


def test_a_model_that_left_the_catalogue_is_refused(
    alice: TestClient, dataset: str, base: str, database: Database
) -> None:
    change(database, base, model="withdrawn")
    reason = refusal(alice.post("/jobs", json={"model": base, "dataset": dataset}))
    assert reason == f"{base} has trained 'withdrawn', which is no longer in the catalogue"


def test_a_result_that_was_removed_is_refused_with_every_result_that_needs_it(
    alice: TestClient, dataset: str, base: str, database: Database, settings: Settings
) -> None:
    part = add_finished(alice, database, settings, whole=False, model=base, dataset=dataset)
    whole = add_finished(alice, database, settings, model=base, dataset=dataset)
    change(database, base, files_removed_at=NOW)
    reason = refusal(alice.post("/jobs", json={"model": base, "dataset": dataset}))
    assert reason == f"the result of {base} was removed: this service keeps results for a limited time"
    reason = refusal(alice.post("/jobs", json={"model": part, "dataset": dataset}))
    assert reason.startswith(f"the result of {base} was removed")
    assert reason.endswith(f"the result of {part} is only what changed since")
    assert alice.post("/jobs", json={"model": whole, "dataset": dataset}).status_code == 201


def test_a_chain_of_jobs_is_bounded(
    alice: TestClient, dataset: str, base: str, database: Database, settings: Settings
) -> None:
    last = base
    for _ in range(MAX_LINEAGE - 2):
        job_id = alice.post("/jobs", json={"model": MODEL, "dataset": dataset}).json()["id"]
        change(database, job_id, base_job_id=last, status=JobStatus.SUCCEEDED)
        last = job_id
    assert "no more can follow" not in alice.post("/jobs", json={"model": last, "dataset": dataset}).text
    job_id = alice.post("/jobs", json={"model": MODEL, "dataset": dataset}).json()["id"]
    change(database, job_id, base_job_id=last, status=JobStatus.SUCCEEDED)
    assert f"the last of {MAX_LINEAGE} jobs" in refusal(alice.post("/jobs", json={"model": job_id, "dataset": dataset}))


def test_a_result_that_an_open_job_needs_is_kept(
    alice: TestClient, dataset: str, base: str, database: Database, settings: Settings
) -> None:
    settings = settings.model_copy(update={"artifact_retention_days": 1.0})
    part = add_finished(alice, database, settings, whole=False, model=base, dataset=dataset)
    further = alice.post("/jobs", json={"model": part, "dataset": dataset}).json()["id"]
    remove_old_files(database, settings, at=NOW + timedelta(days=30))
    assert [settings.artifact_file(job, "x").parent.is_dir() for job in (base, part)] == [True, True]
    assert alice.post(f"/jobs/{further}/cancel").status_code == 202
    remove_old_files(database, settings, at=NOW + timedelta(days=30))
    assert [settings.artifact_file(job, "x").parent.is_dir() for job in (base, part)] == [False, False]
    retried = alice.post(f"/jobs/{further}/retry")
    assert retried.status_code == 409
    assert f"the result of {part} was removed" in retried.json()["detail"]


def test_a_submission_and_the_removal_of_its_base_exclude_each_other(
    alice: TestClient, dataset: str, base: str, database: Database, settings: Settings
) -> None:
    settings = settings.model_copy(update={"artifact_retention_days": 1.0})
    with database.session() as session:
        assert LineageRepository(session).lock_for_use(base) is not None
        remove_old_files(database, settings, at=NOW + timedelta(days=30))
    assert settings.artifact_file(base, "x").parent.is_dir()
