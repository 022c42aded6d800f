"""The OpenAPI description is committed, complete, and the same for every deployment."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.describe import COMMAND, OPENAPI_FILE, render_openapi

UNSAFE = {"post", "put", "patch", "delete"}
PROBLEM = {"schema": {"$ref": "#/components/schemas/ProblemBody"}}


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(render_openapi())
    return made


def operations(openapi: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def answers(operation: dict[str, Any], openapi: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return an operation's responses, including shared ones."""
    shared = openapi["components"]["responses"]
    return {
        status: shared[answer["$ref"].rsplit("/", 1)[-1]] if "$ref" in answer else answer
        for status, answer in operation["responses"].items()
    }


def test_the_committed_description_is_current(openapi: dict[str, Any]) -> None:
    stale = f"the interface has changed: `{COMMAND}` renews {OPENAPI_FILE.name}, to be committed with what changed it"
    assert json.loads(OPENAPI_FILE.read_text()) == openapi, stale
    assert OPENAPI_FILE.read_text() == render_openapi(), stale


def test_the_service_serves_the_committed_description(client: TestClient, openapi: dict[str, Any]) -> None:
    assert client.get("/openapi.json").json() == openapi


def test_every_operation_has_a_name_a_description_and_a_tag(openapi: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in openapi["tags"]}
    names = [operation["operationId"] for _, operation in operations(openapi)]
    assert len(names) == len(set(names))
    for call, operation in operations(openapi):
        assert operation["operationId"].isidentifier(), call
        assert operation["summary"], call
        assert operation["description"], call
        untold = [given["name"] for given in operation.get("parameters", []) if not given.get("description")]
        assert untold == [], call
        assert set(operation["tags"]) <= tags, f"{call}: describe its tag in api/http/openapi.py"
    assert [name for name, schema in openapi["components"]["schemas"].items() if not schema.get("description")] == []


def test_every_operation_declares_its_refusals(openapi: dict[str, Any]) -> None:
    assert openapi["security"] == [{"key": []}, {"session": []}]
    for call, operation in operations(openapi):
        given = set(operation["responses"])
        if operation.get("security") == []:
            assert call in {"get /livez", "get /readyz"}
            continue
        assert {"303", "401", "429", "503"} <= given, call
        if call.split()[0] in UNSAFE:
            assert "403" in given, call
        if "requestBody" in operation:
            assert {"413", "422"} <= given, call


def test_every_response_declares_its_headers_and_every_error_is_a_problem(openapi: dict[str, Any]) -> None:
    for call, operation in operations(openapi):
        for status, answer in answers(operation, openapi).items():
            assert answer["description"] != "Successful Response", call
            assert "X-Request-Id" in answer["headers"], (call, status)
            if int(status) >= 400:
                assert answer["content"] == {"application/problem+json": PROBLEM}, (call, status)
            if status in ("429", "503"):
                assert "Retry-After" in answer["headers"], (call, status)
            if status == "201":
                assert "Location" in answer["headers"], call
            if status == "304":
                assert "ETag" in answer["headers"], call
                assert "ETag" in answers(operation, openapi)["200"]["headers"], call


def test_every_json_body_has_an_example(openapi: dict[str, Any]) -> None:
    for call, operation in operations(openapi):
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None:
            schema = openapi["components"]["schemas"][body["schema"]["$ref"].rsplit("/", 1)[-1]]
            required = [schema["properties"][name] for name in schema.get("required", [])]
            told = schema.get("examples") or all(field.get("examples") for field in required)
            assert told, f"{call}: give {schema['title']} an example"


def test_downloads_parts_and_streams_are_described_by_their_media_types(openapi: dict[str, Any]) -> None:
    download = answers(openapi["paths"]["/jobs/{job_id}/artifacts/{name}"]["get"], openapi)
    for status in ("200", "206"):
        assert list(download[status]["content"]) == ["application/octet-stream"]
        assert "ETag" in download[status]["headers"]
    assert "Content-Range" in download["206"]["headers"]
    assert "Content-Range" in download["416"]["headers"]
    events = answers(openapi["paths"]["/jobs/{job_id}/events"]["get"], openapi)
    assert set(events["200"]["content"]) == {"application/json", "text/event-stream"}
