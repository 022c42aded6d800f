"""10,000 malformed bodies and uploads are refused by a 4xx, and no header, path or query leads to a 5xx.

A share of them by default; all with `MALFORMED=full`, which `make malformed` sets.
"""

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Message

from api.main import create_app
from runtime.settings import Settings
from tests.api.conftest import MODEL, NOW
from tests.api.http.malformed import Headers, Request, invalid_bodies, invalid_uploads, malformed_requests
from tests.keys import bearer

FULL = os.environ.get("MALFORMED") == "full"
BODIES, UPLOADS, QUESTIONS = (8_000, 2_000, 5_000) if FULL else (800, 200, 500)
SEED = 20261124
AT_ONCE = 8
POLICY = {
    "kind": "steps",
    "steps": [{"up_to": 150, "rho": 1.0}, {"rho": 0.5}],
    "gate": {"mode": "defer", "min_saving": 0.05, "max_delay_hours": 24},
    "smoothing": {"deadband": 0.05, "min_epochs": 1, "max_change": 0.3},
}
SIMULATION = {
    "policy": POLICY,
    "work_hours": 2.5,
    "epochs": 2,
    "deadline_hours": 5.5,
    "power_w": 200.5,
    "idle_power_w": 0.5,
    "forecast": "perfect",
    "start": "2026-01-01T00:00:00Z",
    "series": [
        {"start": "2026-01-01T00:00:00Z", "gco2e_per_kwh": 100.5, "signal": "average", "estimated": False},
        {"start": "2026-01-01T06:00:00Z", "end": "2026-01-01T12:00:00Z", "gco2e_per_kwh": 50.5},
    ],
}


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application with small limits, so that oversized requests can be small."""
    changed = {"rate_limit_per_minute": 10**9, "max_body_bytes": 2**20, "max_upload_bytes": 2**20}
    return create_app(settings.model_copy(update=changed), clock=lambda: NOW)


@pytest.fixture
def valid_bodies(dataset_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return a valid body for each call that takes JSON, with every kind of field."""
    job = {
        "model": MODEL,
        "dataset": dataset_id,
        "method": "greentrainer",
        "policy": POLICY,
        "zone": "FR",
        "deadline": "2026-12-24T00:00:00Z",
        "priority": 5,
        "hyperparameters": {
            "epochs": 2,
            "learning_rate": 0.0001,
            "seed": 7,
            "prompt_format": "plain",
            "result": "full",
        },
        "metadata": {"team": "speech"},
    }
    key = {"owner": "carol", "role": "user", "name": "hers", "expires_at": "2027-01-01T00:00:00Z"}
    return {
        ("POST", "/jobs"): job,
        ("POST", "/jobs/estimate"): job,
        ("POST", "/policies"): {"name": "nights", "policy": POLICY},
        ("PUT", "/policies/nights"): {"policy": POLICY},
        ("POST", "/policies/simulate"): SIMULATION,
        ("POST", "/keys"): key,
        ("POST", "/webhooks"): {"url": "https://example.com/greentune"},
    }


async def answer(app: FastAPI, request: Request, headers: Headers) -> tuple[int, dict[str, str], bytes]:
    """Return the application's response to a request of any bytes, as a server would pass it on."""
    chunks = list(request.chunks)
    sent: list[Message] = []

    async def receive() -> Message:
        chunk = chunks.pop(0) if chunks else None
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)

    named = {name for name, _ in request.headers}
    # Failures are counted by address, which is not under test here.
    anonymous = "198.51.100." + str(random.randrange(256)) if {b"authorization", b"cookie"} & named else "127.0.0.1"
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": request.method,
        "path": unquote(request.path),
        "raw_path": request.path.encode(),
        "query_string": request.query,
        "root_path": "",
        "scheme": "http",
        "server": ("test", 80),
        "client": (anonymous, 1),
        "headers": [*(pair for pair in headers if pair[0] not in named), *request.headers],
    }
    await app(scope, receive, send)
    start, *parts = sent
    told = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return start["status"], told, b"".join(part.get("body", b"") for part in parts)


def send_requests(app: FastAPI, key: str, requests: Sequence[Request]) -> list[tuple[int, dict[str, str], bytes]]:
    """Return the responses, in order; fails with the request if the application raises."""
    headers = [(name.lower().encode(), value.encode()) for name, value in bearer(key).items()]
    headers.append((b"host", b"test"))

    async def all_of_them() -> list[tuple[int, dict[str, str], bytes]]:
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(request: Request) -> tuple[int, dict[str, str], bytes]:
            async with turns:
                try:
                    return await asyncio.wait_for(answer(app, request, headers), 60)
                except Exception as error:
                    raise AssertionError(f"{error!r} at {request}") from error

        return await asyncio.gather(*map(one, requests))

    return asyncio.run(all_of_them())


def check_problem(told: dict[str, str], body: bytes, status: int) -> None:
    assert told["content-type"] == "application/problem+json"
    problem = json.loads(body)
    assert problem["status"] == status
    assert problem["detail"]


def test_malformed_bodies_and_uploads_are_client_errors(
    app: FastAPI, client: TestClient, operator_key: str, valid_bodies: dict[tuple[str, str], dict[str, Any]]
) -> None:
    documented = {
        (method.upper(), path.replace("{name}", "nights"))
        for path, methods in client.get("/openapi.json").json()["paths"].items()
        for method, operation in methods.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    assert documented == set(valid_bodies), "give each call that takes JSON a valid body here"
    for (method, path), given in valid_bodies.items():
        taken = client.request(method, path, json=given)
        assert taken.status_code < 300 or path == "/jobs/estimate", f"{method} {path}: {taken.text}"
    before = client.get("/jobs").json()["data"], client.get("/policies").json(), client.get("/datasets").json()
    rng = random.Random(SEED)
    bodies = [invalid_bodies(rng, method, path, given) for (method, path), given in valid_bodies.items()]
    requests = [next(source) for source in islice(cycle(bodies), BODIES)]
    requests += islice(invalid_uploads(rng, "/datasets"), UPLOADS)

    answers = send_requests(app, operator_key, requests)

    assert len(answers) == BODIES + UPLOADS
    for request, (status, told, body) in zip(requests, answers, strict=True):
        assert status in (400, 413, 415, 422), f"{status} {body[:500]!r} to {request}"
        check_problem(told, body, status)
    seen = Counter(status for status, _, _ in answers)
    assert seen[422] > 0.6 * len(answers), seen
    assert {400, 415} <= set(seen)
    assert (
        client.get("/jobs").json()["data"],
        client.get("/policies").json(),
        client.get("/datasets").json(),
    ) == before


def test_malformed_headers_paths_and_queries_cause_no_server_error(
    app: FastAPI, client: TestClient, operator_key: str, job_id: str
) -> None:
    assert client.post(f"/jobs/{job_id}/cancel").status_code == 202
    calls = list(documented_queries(client, job_id))
    requests = list(islice(malformed_requests(random.Random(SEED), calls), QUESTIONS))

    answers = send_requests(app, operator_key, requests)

    assert len(answers) == QUESTIONS
    for request, (status, told, body) in zip(requests, answers, strict=True):
        assert status < 500 or (status == 503 and "zones" in request.path), f"{status} {body[:500]!r} to {request}"
        if status >= 400:
            check_problem(told, body, status)
    seen = Counter(status for status, _, _ in answers)
    assert {200, 401, 404, 422} <= set(seen), seen
    assert seen[401] < 0.3 * len(answers), seen


def documented_queries(client: TestClient, job_id: str) -> Iterator[tuple[str, str, list[str]]]:
    """Return each documented call with its query parameters, for a finished job, so that its streams end."""
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            names = [given["name"] for given in operation.get("parameters", []) if given["in"] == "query"]
            yield method.upper(), path, names
            if "{job_id}" in path:
                yield method.upper(), path.replace("{job_id}", job_id), names
    for page in ("/", "/dashboard/jobs/{job_id}", "/docs", "/sign-in", "/static/{name}", "/{nothing}"):
        yield "GET", page, ["after", "next"]
    yield "POST", "/sign-in", ["next"]
