"""A request repeated with its `Idempotency-Key` is executed once, and gets the first response again."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import delete, text
from starlette.types import Message, Receive, Scope, Send

from api.main import create_app
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import IdempotencyKey
from tests.api.conftest import MODEL, NOW
from tests.keys import bearer

HEADERS = {"Idempotency-Key": "night run, #1"}


@pytest.fixture
def body(dataset_id: str) -> dict[str, Any]:
    return {"model": MODEL, "dataset": dataset_id, "metadata": {"team": "speech", "run": "ä"}}


def job_count(client: TestClient) -> int:
    return len(client.get("/jobs").json()["data"])


def test_a_repeat_gets_the_first_response_byte_for_byte_after_the_job_has_changed(
    body: Any, client: TestClient, database: Database
) -> None:
    first = client.post("/jobs", json=body, headers=HEADERS)
    with database.session() as session:
        job = JobRepository(session).lock(first.json()["id"])
        assert job is not None
        transition(session, job, JobStatus.QUEUED, at=NOW)

    again = client.post("/jobs", json=body, headers=HEADERS)

    assert first.status_code == again.status_code == 201
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"] == f"/jobs/{first.json()['id']}"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert job_count(client) == 1


def test_another_encoding_of_the_same_json_is_the_same_request(body: Any, client: TestClient) -> None:
    first = client.post("/jobs", json=body, headers=HEADERS)
    turned = json.dumps(dict(reversed(body.items())), indent=2)
    again = client.post("/jobs", content=turned, headers={**HEADERS, "Content-Type": "application/json"})
    assert again.content == first.content


def test_a_key_that_was_used_for_another_request_is_refused(body: Any, client: TestClient) -> None:
    client.post("/jobs", json=body, headers=HEADERS)

    response = client.post("/jobs", json={**body, "priority": 1}, headers=HEADERS)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "Idempotency-Key"
    assert "2026-11-23T12:00:00+00:00 for another request" in response.json()["detail"]
    assert job_count(client) == 1


def test_a_policy_is_stored_once_and_its_key_is_separate_from_those_of_jobs(body: Any, client: TestClient) -> None:
    policy = {"name": "night", "policy": {"kind": "constant", "rho": 0.5}}
    first, again = (client.post("/policies", json=policy, headers=HEADERS) for _ in range(2))
    assert (again.status_code, again.content, first.json()["version"]) == (201, first.content, 1)
    assert client.get("/policies/night").json()["version"] == 1
    assert client.post("/jobs", json=body, headers=HEADERS).status_code == 422


def test_without_a_key_every_submission_creates_a_job(body: Any, client: TestClient) -> None:
    assert client.post("/jobs", json=body).json()["id"] != client.post("/jobs", json=body).json()["id"]


def test_a_refused_request_may_be_corrected_and_sent_under_the_same_key(body: Any, client: TestClient) -> None:
    assert client.post("/jobs", json={**body, "zone": "nowhere"}, headers=HEADERS).status_code == 422

    response = client.post("/jobs", json=body, headers=HEADERS)

    assert response.status_code == 201
    assert "idempotency-replayed" not in response.headers


def test_keys_are_separate_for_each_owner(alice: TestClient, bob: TestClient) -> None:
    ids = set()
    for user in (alice, bob):
        uploaded = user.post("/datasets", files={"file": ("rows.jsonl", b'{"text": "Leaves are green."}\n')}).json()
        response = user.post("/jobs", json={"model": MODEL, "dataset": uploaded["id"]}, headers=HEADERS)
        assert response.status_code == 201, response.text
        ids.add(response.json()["id"])
    assert len(ids) == 2


@pytest.mark.parametrize("key", [b"", b"x" * 256, "schlüssel".encode(), b"a\tb"])
def test_a_key_is_1_to_255_printable_ascii_characters(body: Any, client: TestClient, key: bytes) -> None:
    response = client.post("/jobs", json=body, headers=[(b"Idempotency-Key", key)])

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "Idempotency-Key"


@pytest.mark.parametrize("key", ["x" * 255, "~ !"])
def test_a_valid_key_is_accepted(body: Any, client: TestClient, key: str) -> None:
    assert client.post("/jobs", json=body, headers={"Idempotency-Key": key}).status_code == 201


def test_a_stored_response_expires_and_its_key_may_be_used_again(
    body: Any, client: TestClient, settings: Settings, operator_key: str
) -> None:
    first = client.post("/jobs", json=body, headers=HEADERS).json()["id"]

    def submit_after(hours: float) -> str:
        app = create_app(settings, clock=lambda: NOW + timedelta(hours=hours))
        with TestClient(app, headers=bearer(operator_key)) as client:
            return str(client.post("/jobs", json=body, headers=HEADERS).json()["id"])

    assert submit_after(settings.idempotency_hours) == first
    second = submit_after(settings.idempotency_hours + 0.1)
    assert second != first
    assert submit_after(settings.idempotency_hours + 0.2) == second


def test_concurrent_requests_with_one_key_create_one_job(body: Any, client: TestClient) -> None:
    with ThreadPoolExecutor(8) as threads:
        sent = [threads.submit(client.post, "/jobs", json=body, headers=HEADERS) for _ in range(8)]
        answers = [answer.result() for answer in sent]

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count(None) == 1
    assert job_count(client) == 1


def test_an_expired_key_may_be_reused_while_retention_deletes_its_row(
    body: Any, client: TestClient, settings: Settings, database: Database, operator_key: str
) -> None:
    client.post("/jobs", json=body, headers=HEADERS)
    later = NOW + timedelta(hours=settings.idempotency_hours + 1)
    with (
        TestClient(create_app(settings, clock=lambda: later), headers=bearer(operator_key)) as reusing,
        ThreadPoolExecutor() as threads,
    ):
        with database.session() as session:
            session.execute(delete(IdempotencyKey))
            response = threads.submit(reusing.post, "/jobs", json=body, headers=HEADERS)
            wait_for_lock(database)
        assert response.result().status_code == 201
        assert "idempotency-replayed" not in response.result().headers
        assert reusing.post("/jobs", json=body, headers=HEADERS).content == response.result().content


def wait_for_lock(database: Database) -> None:
    """Wait until a connection waits for a lock of another."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    deadline = time.monotonic() + 10
    while True:
        with database.session() as session:
            if session.scalar(waiting):
                return
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def disconnected_client(app: FastAPI, operator_key: str) -> TestClient:
    """A client whose connection is lost before the response arrives."""

    async def lossy(scope: Scope, receive: Receive, send: Send) -> None:
        async def lose(message: Message) -> None:
            if message["type"] == "http.response.start":
                raise ConnectionResetError
            await send(message)

        await app(scope, receive, lose)

    return TestClient(lossy, headers=bearer(operator_key))


def test_a_repeat_after_a_lost_response_gets_that_response(
    body: Any, disconnected_client: TestClient, client: TestClient
) -> None:
    with pytest.raises(ConnectionResetError):
        disconnected_client.post("/jobs", json=body, headers=HEADERS)

    response = client.post("/jobs", json=body, headers=HEADERS)

    assert (response.status_code, response.headers["idempotency-replayed"]) == (201, "true")
    assert [job["id"] for job in client.get("/jobs").json()["data"]] == [response.json()["id"]]


def test_openapi_declares_the_header_and_the_replayed_response(app: FastAPI) -> None:
    operation = app.openapi()["paths"]["/jobs"]["post"]
    [key] = [parameter for parameter in operation["parameters"] if parameter["name"] == "Idempotency-Key"]
    assert (key["in"], key["required"]) == ("header", False)
    assert {"Location", "Idempotency-Replayed"} <= set(operation["responses"]["201"]["headers"])
