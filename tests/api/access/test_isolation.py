"""Isolation of owners: every route of the application is requested, including those added later."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from runtime.settings import Settings
from runtime.site import Site
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.keys import KeyRepository
from store.repositories.workers import WorkerRepository
from store.tables import Checkpoint, Job
from tests.api.conftest import MODEL, NOW, run_to_success

PUBLIC = {"/livez", "/readyz", "/sign-in", "/static", "/static/uplot"}
# Path parameters that identify an owner's resources; all others name shared ones.
OWNED = {"job_id", "dataset_id", "webhook_id", "delivery_id"}
OPERATORS = {"/keys", "/keys/{key_id}", "/audit", "/metrics", "/dashboard/keys"}
ROWS = b'{"prompt": "Where does Alice keep the aardvark?", "completion": " In the attic."}\n{"text": "Hush, Alice."}\n'
AGAIN = {"Idempotency-Key": "one-and-the-same"}


@dataclass(frozen=True)
class Call:
    """One method of one path of the application's router."""

    method: str
    path: str

    @property
    def parameters(self) -> set[str]:
        return {part.strip("{}").partition(":")[0] for part in self.path.split("/") if part.startswith("{")}

    @property
    def is_owned(self) -> bool:
        return bool(self.parameters & OWNED)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class OwnedResources:
    """What belongs to Alice: ids by path parameter, and texts that no other owner may read."""

    ids: dict[str, str]
    words: list[str]

    def path(self, call: Call) -> str:
        """Return the path of a call with her ids in it; fails for an unknown parameter."""
        path = call.path.replace(":path}", "}")
        for name in call.parameters:
            known = "artifact" if "/artifacts/" in path and name == "name" else name
            assert known in self.ids, f"{call}: this test does not know what to put for {{{name}}}: teach it"
            path = path.replace(f"{{{name}}}", self.ids[known])
        return path

    def fields(self, names: Iterable[str]) -> dict[str, str]:
        """Return her ids for those fields or parameters that can take one."""
        known = {**self.ids, "dataset": self.ids["dataset_id"], "job": self.ids["job_id"], "model": MODEL}
        return {name: known[name] for name in names if name in known}

    def fill_request(self, call: Call, description: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
        """Return a query and a body with her ids wherever the call can take them."""
        operation = description["paths"].get(call.path.replace(":path}", "}"), {}).get(call.method.lower(), {})
        asked = [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        schema = description["components"]["schemas"].get(content.get("$ref", "").rsplit("/", 1)[-1], {})
        return self.fields(asked), self.fields(schema.get("properties", {}))


def calls(app: FastAPI) -> list[Call]:
    """Return every call, including those of pages and mounted folders."""
    return [
        Call(method, str(route.path))
        for route in iter_route_contexts(app.routes)
        for method in sorted(route.methods or {"GET"})
        if method != "HEAD"
    ]


@pytest.fixture
def owned(alice: TestClient, client: TestClient, database: Database, settings: Settings) -> OwnedResources:
    """Create Alice's resources of every kind, including a finished and a running job."""
    dataset = alice.post("/datasets", files={"file": ("alices-diary.jsonl", ROWS)}).json()
    webhook = alice.post("/webhooks", json={"url": "https://hooks.example.com/for-alice"}).json()
    asked = {
        "model": MODEL,
        "dataset": dataset["id"],
        "zone": "FR",
        "metadata": {"purpose": "a-surprise-for-alice"},
        "hyperparameters": {"sample_prompt": "Whisper to Alice"},
    }
    ended, running = (alice.post("/jobs", json=asked, headers=AGAIN | {"Idempotency-Key": key}).json() for key in "ab")
    run_to_success(database, settings, ended["id"])
    with database.session() as session:
        held = session.get_one(Job, running["id"])
        held.status, held.worker_id = JobStatus.RUNNING, "worker_1"
        WorkerRepository(session).record_heartbeat("worker_1", site=Site(zone="FR"), device="cpu", at=NOW)
        session.add(
            Checkpoint(
                job_id=ended["id"], name="step-10-alice", attempt=1, step=10, epochs_done=1, bytes=9, created_at=NOW
            )
        )
        [key_id] = [key.id for key in KeyRepository(session).page(limit=9).data if key.owner == "alice"]
    policy = {"name": "shared", "policy": {"kind": "constant", "rho": 0.6}}
    assert client.post("/policies", json=policy).status_code == 201
    ids = {
        "job_id": ended["id"],
        "dataset_id": dataset["id"],
        "webhook_id": webhook["id"],
        "key_id": key_id,
        "artifact": "model.safetensors",
        "name": "shared",
        "zone": "FR",
        "owner": "alice",
    }
    words = [*(ids[name] for name in ("job_id", "dataset_id", "webhook_id", "key_id")), running["id"]]
    return OwnedResources(ids, [*words, dataset["sha256"], "alice", "Alice", "aardvark", "attic", "Whisper"])


def send_call(client: TestClient, call: Call, owned: OwnedResources, app: FastAPI, **headers: str) -> tuple[Any, str]:
    """Return the response to a call about her resources, and the texts that the request contained."""
    path = owned.path(call)
    query, body = owned.fill_request(call, app.openapi())
    answer = client.request(
        call.method,
        path,
        params=query,
        headers=headers,
        json=body if call.method in ("POST", "PUT", "PATCH") else None,
        follow_redirects=False,
    )
    return answer, path + json.dumps([query, body])


def variants(call: Call, etag: str) -> Iterator[dict[str, str]]:
    """Return headers that make a call take other paths through the application."""
    yield AGAIN if call.method == "POST" else {}
    if call.method == "GET":
        yield {"If-None-Match": etag}
        yield {"If-None-Match": "*", "Range": "bytes=0-3"}
        if call.is_owned:
            yield {"Accept": "text/event-stream"}


def test_a_users_key_cannot_access_another_users_resources(
    app: FastAPI, alice: TestClient, bob: TestClient, owned: OwnedResources
) -> None:
    job, dataset = f"/jobs/{owned.ids['job_id']}", f"/datasets/{owned.ids['dataset_id']}"
    before = {path: alice.get(path) for path in (job, dataset, "/jobs", "/datasets", "/webhooks")}
    etag = before[job].headers.get("etag", '"none"')

    for call in calls(app):
        for headers in variants(call, etag):
            answer, asked = send_call(bob, call, owned, app, **headers)

            assert answer.status_code < 500, f"{call}: {answer.text}"
            if call.is_owned:
                assert answer.status_code == 404, f"{call} {headers}: {answer.status_code} {answer.text}"
            if call.path in OPERATORS:
                assert answer.status_code == 403, f"{call}: {answer.status_code} {answer.text}"
            told = answer.text + str(answer.headers)
            leaked = [word for word in owned.words if word in told and word not in asked]
            assert leaked == [], f"{call} {headers}: {leaked} in {answer.text}"

    assert {path: alice.get(path).json() for path in before} == {path: was.json() for path, was in before.items()}


def test_lists_contain_nothing_of_another_user(bob: TestClient, owned: OwnedResources) -> None:
    newest = "job_" + "f" * 32
    for path in ("/jobs", "/datasets", "/webhooks"):
        for query in (
            {},
            {"after": newest},
            {"limit": 1},
            {"zone": "FR"},
            {"metadata[purpose]": "a-surprise-for-alice"},
        ):
            assert bob.get(path, params=query).json() == {"data": [], "has_more": False}, (path, query)
    [worker] = bob.get("/workers").json()["data"]
    assert (worker["state"], worker["job"]) == ("busy", None)


def test_the_owner_can_access_every_resource(app: FastAPI, alice: TestClient, owned: OwnedResources) -> None:
    looked_at = 0
    for call in calls(app):
        if call.method == "GET" and call.is_owned:
            answer, _ = send_call(alice, call, owned, app)
            assert answer.status_code < 400, f"{call}: {answer.status_code} {answer.text}"
            looked_at += 1
    assert looked_at >= 10
    worker = alice.get("/workers").json()["data"][0]
    assert worker["state"] == "busy"
    assert worker["job"] in owned.words


def test_without_a_key_only_public_paths_respond(app: FastAPI, anonymous: TestClient, owned: OwnedResources) -> None:
    for call in calls(app):
        if call.path in PUBLIC:
            continue
        for headers in variants(call, '"none"'):
            answer, asked = send_call(anonymous, call, owned, app, **headers)

            if answer.status_code == 303:
                assert answer.headers["location"].startswith("/sign-in?next="), str(call)
            else:
                assert answer.status_code == 401, f"{call}: {answer.status_code} {answer.text}"
            assert [word for word in owned.words if word in answer.text and word not in asked] == []


def test_every_route_names_its_principal(app: FastAPI) -> None:
    """The middleware refuses requests without a principal anyway; this keeps each route aware of its principal."""
    from api.access.principal import _principal

    def depends_on_principal(dependant: Any) -> bool:
        return any(inner.call is _principal or depends_on_principal(inner) for inner in dependant.dependencies)

    unaware = {
        str(route.path)
        for route in iter_route_contexts(app.routes)
        if getattr(route, "dependant", None) is not None and not depends_on_principal(route.dependant)
    }
    assert unaware == {"/livez", "/readyz", "/sign-in"}
