"""Requests and responses are bounded in size, number of values, and time."""

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.describe import render_openapi
from greencore.policy import PolicyError, parse_policy
from store.database import Database
from store.repositories.policies import PolicyRepository
from tests.api.conftest import NOW, Submit

pytestmark = pytest.mark.fault(number=20)

CONSTANT = '"kind":"constant","rho":0.6'
LARGEST_ANSWER_BYTES = 150_000


def repeat(count: int, each: str) -> str:
    return ",".join([each] * count)


def numbered_fields(count: int, value: str = "1") -> str:
    return ",".join(f'"k{number}":{value}' for number in range(count))


BODIES: dict[str, Callable[[int], str]] = {
    "empty steps": lambda count: f'{{"kind":"steps","steps":[{repeat(count, "{}")}]}}',
    "good steps": lambda count: (
        f'{{"kind":"steps","steps":[{",".join(f"""{{"up_to":{n},"rho":0.5}}""" for n in range(count))},{{"rho":0.5}}]}}'
    ),
    "unknown keys": lambda count: f"{{{CONSTANT},{numbered_fields(count)}}}",
    "unknown keys of a gate": lambda count: f'{{{CONSTANT},"gate":{{{numbered_fields(count)}}}}}',
    "unknown keys of on_missing": lambda count: f'{{{CONSTANT},"on_missing":{{{numbered_fields(count)}}}}}',
    "a list for a number": lambda count: f'{{"kind":"constant","rho":[{repeat(count, "1")}]}}',
    "a list for a kind": lambda count: f'{{"kind":[{repeat(count, "1")}],"rho":1}}',
    "a list for steps of lists": lambda count: f'{{"kind":"steps","steps":[[{repeat(count, "[]")}]]}}',
    "a long kind": lambda count: json.dumps({"kind": "x" * count}),
    "a long key": lambda count: f'{{{CONSTANT},"{"k" * count}":1}}',
    "a long text for a number": lambda count: json.dumps({"kind": "constant", "rho": "9" * count}),
}
WHERE: dict[str, Callable[[str], str]] = {
    "POST /policies": lambda policy: f'{{"name":"p","policy":{policy}}}',
    "PUT /policies/p": lambda policy: f'{{"policy":{policy}}}',
    "POST /jobs": lambda policy: f'{{"model":"m","dataset":"d","policy":{policy}}}',
    "POST /jobs/estimate": lambda policy: f'{{"model":"m","dataset":"d","policy":{policy}}}',
    "POST /policies/simulate": lambda policy: f'{{"policy":{policy},"work_hours":1,"epochs":1,"zone":"FR"}}',
}


def send(client: TestClient, call: str, body: str) -> Any:
    method, path = call.split()
    return client.request(method, path, content=body.encode(), headers={"Content-Type": "application/json"})


def check(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 422, answer.text[:300]
    assert len(answer.content) < LARGEST_ANSWER_BYTES
    problem: dict[str, Any] = answer.json()
    assert 1 <= len(problem["errors"]) <= 100
    assert problem.get("error_count", 101) > 100
    return problem


@pytest.mark.parametrize("call", WHERE)
@pytest.mark.parametrize("count", [2_000, 15_000])
def test_the_response_to_a_policy_with_many_errors_is_short(client: TestClient, call: str, count: int) -> None:
    for name, policy in BODIES.items():
        problem = check(send(client, call, WHERE[call](policy(count))))
        assert any(error["field"].startswith(("policy", "body")) for error in problem["errors"]), name


def test_the_largest_bodies_are_refused_before_they_are_read(client: TestClient) -> None:
    for policy in (BODIES["empty steps"](2_000_000), BODIES["good steps"](400_000), BODIES["unknown keys"](1_000_000)):
        for call in ("POST /policies", "PUT /policies/p", "POST /policies/simulate"):
            body = WHERE[call](policy)
            assert len(body) < 16 * 2**20
            begin = time.process_time()
            [error] = check(send(client, call, body))["errors"]
            assert time.process_time() - begin < 1.5
            assert error["field"] in ("body", "policy.steps", "policy")
    assert client.get("/policies").json()["data"] == []


def test_a_refused_body_costs_little_memory(client: TestClient) -> None:
    body = WHERE["POST /policies"](BODIES["empty steps"](2_000_000)).encode()
    tracemalloc.start()
    try:
        client.post("/policies", content=body, headers={"Content-Type": "application/json"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 8 * len(body)


@pytest.mark.parametrize("count", [2_000, 15_000])
def test_at_most_a_hundred_unknown_and_long_fields_are_reported(client: TestClient, count: int) -> None:
    for call, text in {
        "POST /jobs": f'{{"model":"m","dataset":"d",{numbered_fields(count)}}}',
        "POST /jobs/estimate": f'{{"model":"m","dataset":"d","hyperparameters":{{{numbered_fields(count)}}}}}',
        "POST /keys": f'{{"owner":"o",{numbered_fields(count)}}}',
        "POST /webhooks": f'{{"url":"https://example.com",{numbered_fields(count)}}}',
        "POST /policies": f'{{"name":"p","policy":{{{CONSTANT}}},{numbered_fields(count)}}}',
    }.items():
        problem = check(send(client, call, text))
        assert problem["error_count"] == count
        assert problem["detail"].endswith(f"(and {count - 1} more)")
    bodies: list[dict[str, Any]] = [
        {"metadata": {"k" * 100_000: "x"}},
        {"metadata": {f"k{number}": "x" for number in range(count)}},
        {"metadata": {"k": "x" * 100_000}},
        {"model": "m" * 100_000},
        {"zone": "z" * 100_000},
        {"policy": "p" * 100_000},
        {"k" * 100_000: 1},
        {"hyperparameters": {"sample_prompt": "x" * 100_000}},
    ]
    for body in bodies:
        answer = client.post("/jobs", json={"model": "m", "dataset": "d", **body})
        assert len(check(answer)["detail"]) < 3000


def test_at_most_a_hundred_invalid_readings_are_reported_by_index_with_their_count(client: TestClient) -> None:
    good = {"start": "2026-01-01T00:00:00Z", "gco2e_per_kwh": 1}
    body = {"policy": json.loads(f"{{{CONSTANT}}}"), "work_hours": 1, "epochs": 1}

    problem = check(client.post("/policies/simulate", json={**body, "series": [good] * 1500 + [{}] * 3000}))

    assert problem["error_count"] == 6000
    assert problem["errors"][0]["field"] == "series[1500].start"
    many_keys = json.dumps({**body, "series": []})[:-1] + "," + numbered_fields(400_000) + "}"
    [error] = check(send(client, "POST /policies/simulate", many_keys))["errors"]
    assert error == {"field": "body", "message": "given 400,004 fields: expected at most 30"}


def test_queries_and_paths_are_bounded(client: TestClient) -> None:
    long = "x" * 5000
    for path in (
        f"/jobs?zone={long}",
        f"/jobs?after={long}",
        f"/jobs?metadata[k]={long}",
        "/jobs?" + "&".join(f"metadata[k{number}]=1" for number in range(51)),
        f"/jobs/{long}",
        f"/datasets/{long}",
        f"/policies/{long}",
        f"/zones/{long}/intensity",
        f"/keys/{long}",
        f"/webhooks/{long}",
        f"/audit?owner={long}",
    ):
        assert len(check(client.get(path))["detail"]) < 1000, path
    assert client.get("/jobs", headers={"If-None-Match": f'"{long}"'}).status_code == 422


def test_a_form_of_too_many_fields_is_refused(app: FastAPI) -> None:
    with TestClient(app) as anonymous:
        answer = anonymous.post(
            "/sign-in",
            content=b"a&" * 30_000,
            headers={"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"},
        )

    assert answer.status_code == 422
    assert len(answer.content) < LARGEST_ANSWER_BYTES


def test_policies_are_paged(client: TestClient, database: Database) -> None:
    with database.session() as session:
        for number in range(205):
            PolicyRepository(session).add_version(f"p{number:03}", {"kind": "constant", "rho": 0.5}, at=NOW)

    first = client.get("/policies").json()
    rest = client.get("/policies", params={"after": first["data"][-1]["name"]}).json()

    assert [len(first["data"]), first["has_more"]] == [200, True]
    assert [policy["name"] for policy in rest["data"]] == [f"p{number:03}" for number in range(200, 205)]
    assert rest["has_more"] is False
    missing = client.post("/jobs", json={"model": "m", "dataset": "d", "policy": "none"}).json()
    assert max(len(error["message"]) for error in missing["errors"]) < 300


def test_a_stored_policy_above_the_present_limit_is_still_read(
    client: TestClient, database: Database, submit: Submit
) -> None:
    steps = [*({"up_to": number, "rho": 0.5} for number in range(150)), {"rho": 0.5}]
    with database.session() as session:
        PolicyRepository(session).add_version("old", {"kind": "steps", "steps": steps}, at=NOW)

    assert client.get("/dashboard/policies").status_code == 200
    assert client.get("/dashboard/policies/old").status_code == 200
    job = submit(policy="old")
    assert job.status_code == 201
    assert client.get(f"/dashboard/jobs/{job.json()['id']}").status_code == 200


@pytest.mark.parametrize("name", BODIES)
def test_the_librarys_error_on_a_policy_is_bounded(name: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse_policy(json.loads(BODIES[name](400_000)))

    assert len(refused.value.errors) <= 100
    assert len(str(refused.value)) < 2000


def test_a_policy_with_more_than_the_maximum_of_steps_is_refused() -> None:
    good = BODIES["good steps"]

    assert len(parse_policy(json.loads(good(99))).model_dump()["steps"]) == 100
    with pytest.raises(PolicyError, match="steps: given 101 items: expected at most 100"):
        parse_policy(json.loads(good(100)))


def unbounded(schema: dict[str, Any], schemas: dict[str, Any], path: str, seen: set[str]) -> Iterator[str]:
    """Return every place in a schema that accepts values of unlimited length."""
    if (reference := schema.get("$ref")) is not None:
        if reference in seen:
            return
        seen.add(reference)
        schema = schemas[reference.rsplit("/", 1)[1]]
    for name in ("anyOf", "oneOf", "allOf"):
        for number, part in enumerate(schema.get(name, [])):
            yield from unbounded(part, schemas, f"{path}|{number}", seen)
    kind = schema.get("type")
    if kind == "array":
        if "maxItems" not in schema:
            yield f"{path}: a list without maxItems"
        yield from unbounded(schema.get("items", {}), schemas, f"{path}[]", seen)
    if kind == "object":
        for name, part in schema.get("properties", {}).items():
            yield from unbounded(part, schemas, f"{path}.{name}", seen)
        others = schema.get("additionalProperties", True)
        if others is not False:
            if "maxProperties" not in schema:
                yield f"{path}: a map without maxProperties"
            if isinstance(others, dict):
                yield from unbounded(others, schemas, f"{path}{{}}", seen)
            if "propertyNames" in schema:
                yield from unbounded({"type": "string", **schema["propertyNames"]}, schemas, f"{path}{{name}}", seen)
    if kind == "string" and not {"maxLength", "format", "pattern", "enum", "const"} & set(schema):
        yield f"{path}: a text without maxLength"
    if not {"$ref", "type", "anyOf", "oneOf", "allOf", "enum", "const"} & set(schema):
        yield f"{path}: anything"


def test_openapi_bounds_every_list_map_and_text_of_requests() -> None:
    api = json.loads(render_openapi())
    schemas, seen, found = api["components"]["schemas"], set[str](), list[str]()
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", []):
                place = f"{method} {path} {parameter['name']}"
                found += unbounded(parameter["schema"], schemas, place, seen)
            for content in operation.get("requestBody", {}).get("content", {}).values():
                found += unbounded(content["schema"], schemas, f"{method} {path}", seen)

    assert found == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"zone": "Z" * 201}, "zone: given 201 characters: expected at most 200"),
        ({"metadata": {"k": "v" * 1500}}, "metadata.k: given 1,500 characters: expected at most 512"),
        ({"metadata": {"": "v"}}, "metadata..[key]: given 0 characters: expected at least 1"),
    ],
)
def test_a_text_is_measured_in_characters(submit: Submit, changed: dict[str, Any], message: str) -> None:
    assert submit(**changed).json()["detail"] == message
