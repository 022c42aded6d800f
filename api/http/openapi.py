"""The OpenAPI description made whole: what every answer carries, and what the routes' own parts leave unsaid."""

from http import HTTPStatus
from typing import Any

from fastapi.routing import APIRoute

from api.http.problems import REQUEST_ID_HEADER

TAGS = [
    {"name": "jobs", "description": "Fine-tuning runs: submit, follow, steer, and fetch what they leave"},
    {"name": "datasets", "description": "Training rows that jobs name"},
    {"name": "policies", "description": "From a grid's carbon intensity to a run's ρ, and to when it runs"},
    {"name": "models", "description": "The operator's catalogue"},
    {"name": "zones", "description": "The grid: what is known and expected of each zone's carbon intensity"},
    {"name": "workers", "description": "The processes that do the work"},
    {"name": "webhooks", "description": "Calls that this service makes when a job is over"},
    {"name": "access", "description": "Keys, and what was done with them; for operators"},
    {"name": "health", "description": "For whoever runs this service"},
]
PATH_PARAMETERS = {
    "job_id": "As `POST /jobs` gave it: `job_…`",
    "dataset_id": "As `POST /datasets` gave it: `dataset_…`",
    "webhook_id": "As `POST /webhooks` gave it",
    "key_id": "Of the key, which is not its text: `key_…`",
    "zone": "One of `GET /zones`",
    "name": "As the list of them has it",
}
SECONDS_SCHEMA = {"type": "integer", "minimum": 0}
COMMON_HEADERS: dict[str, Any] = {
    REQUEST_ID_HEADER: {
        "description": "Of this request in the log: the one that it named by this header, or a new one",
        "schema": {"type": "string"},
    }
}
HEADERS_BY_STATUS: dict[str, dict[str, Any]] = {
    "201": {"Location": {"description": "Where it can be read", "schema": {"type": "string"}}},
    "401": {"WWW-Authenticate": {"description": "What to send instead", "schema": {"type": "string"}}},
    "416": {"Content-Range": {"description": "`bytes */` and the file's size", "schema": {"type": "string"}}},
    "429": {"Retry-After": {"description": "Seconds to wait", "schema": SECONDS_SCHEMA}},
    "503": {"Retry-After": {"description": "Seconds to wait", "schema": SECONDS_SCHEMA}},
}


def operation_id(route: APIRoute) -> str:
    """What a generated client calls an operation: the name of its function, such as `create_job`."""
    return route.name


def complete_openapi(openapi: dict[str, Any]) -> None:
    """State the tags in use and the headers of every answer, and say once what many operations have in common."""
    headers: dict[str, Any] = {}
    answers: dict[str, Any] = {}
    for path in openapi["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter.setdefault("description", PATH_PARAMETERS[parameter["name"]])
            found = sorted(operation["responses"].items())
            operation["responses"] = {
                status: _complete_response(status, answer, headers, answers) for status, answer in found
            }
    openapi["components"] |= {"headers": headers, "responses": answers}
    used = {tag for path in openapi["paths"].values() for operation in path.values() for tag in operation["tags"]}
    openapi["tags"] = [tag for tag in TAGS if tag["name"] in used]


def _complete_response(
    status: str, answer: dict[str, Any], headers: dict[str, Any], answers: dict[str, Any]
) -> dict[str, Any]:
    """An answer whose headers are in `headers`; just where it lies in `answers`, if others give the same."""
    phrase = HTTPStatus(int(status)).phrase
    if answer["description"] == "Successful Response":
        answer["description"] = phrase
    own = {**COMMON_HEADERS, **HEADERS_BY_STATUS.get(status, {}), **answer.get("headers", {})}
    answer["headers"] = {
        name: _share_component("headers", name, header, headers) for name, header in sorted(own.items())
    }
    alike = int(status) >= HTTPStatus.MULTIPLE_CHOICES
    return _share_component("responses", phrase.replace(" ", ""), answer, answers) if alike else answer


def _share_component(kind: str, name: str, part: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    same = shared.setdefault(name, part) == part
    return {"$ref": f"#/components/{kind}/{name}"} if same else part
