"""Completes the OpenAPI description: access, tags, path parameters, common headers and shared responses."""

from http import HTTPStatus
from typing import Any

from fastapi.routing import APIRoute

from api.access.authentication_middleware import PUBLIC_PATHS
from api.access.sessions import SESSION_COOKIE
from api.http.problems import REQUEST_ID_HEADER, status_description

TAGS = [
    {"name": "jobs", "description": "Fine-tuning runs: submit, follow, control, and download results"},
    {"name": "datasets", "description": "Training rows for jobs"},
    {"name": "policies", "description": "Rules that set a run's ρ and schedule by the grid's carbon intensity"},
    {"name": "models", "description": "The operator's catalogue of models"},
    {"name": "zones", "description": "Carbon intensity of each grid zone: current, forecast and history"},
    {"name": "workers", "description": "Processes that schedule, prepare and train jobs"},
    {"name": "webhooks", "description": "Notifications that this service sends when a job ends"},
    {"name": "access", "description": "API keys and the audit log; for operators"},
    {"name": "health", "description": "Probes and metrics for operators"},
]
PATH_PARAMETERS = {
    "job_id": "Id from `POST /jobs`: `job_…`",
    "dataset_id": "Id from `POST /datasets`: `dataset_…`",
    "webhook_id": "Id from `POST /webhooks`",
    "key_id": "Id of the key, not its text: `key_…`",
    "zone": "A zone from `GET /zones`",
    "name": "Name as in the list",
}
SECONDS_SCHEMA = {"type": "integer", "minimum": 0}
COMMON_HEADERS: dict[str, Any] = {
    REQUEST_ID_HEADER: {
        "description": "Id of this request in the log: the one sent in this header, or a new one",
        "schema": {"type": "string"},
    }
}
HEADERS_BY_STATUS: dict[str, dict[str, Any]] = {
    "201": {"Location": {"description": "Path of the new resource", "schema": {"type": "string"}}},
    "401": {"WWW-Authenticate": {"description": "Credentials to send", "schema": {"type": "string"}}},
    "416": {"Content-Range": {"description": "`bytes */` and the file's size", "schema": {"type": "string"}}},
    "429": {"Retry-After": {"description": "Seconds to wait", "schema": SECONDS_SCHEMA}},
    "503": {"Retry-After": {"description": "Seconds to wait", "schema": SECONDS_SCHEMA}},
}
SAFE_METHODS = ("get", "head")
SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "A key, as `Authorization: Bearer gtk_…`"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": "Cookie of a browser that signed in at `/sign-in`; changes are accepted from its pages only",
    },
}
RATE_LIMIT_HEADERS: dict[str, Any] = {
    name: {"description": description, "schema": {"type": "integer", "minimum": 0}}
    for name, description in (
        ("RateLimit-Limit", "Requests allowed in a minute"),
        ("RateLimit-Remaining", "Requests left"),
        ("RateLimit-Reset", "Seconds until more are allowed"),
    )
}
SIGN_IN_REDIRECT = {
    "description": "To `/sign-in`, if a browser requests a page without a session",
    "headers": {"Location": {"schema": {"type": "string"}}},
}


def operation_id(route: APIRoute) -> str:
    """Return an operation's name in generated clients: that of its function, such as `create_job`."""
    return route.name


def document_access(openapi: dict[str, Any]) -> None:
    """Add the key or session that calls need, and the responses to calls without it."""
    openapi["components"].setdefault("securitySchemes", {}).update(SCHEMES)
    openapi["security"] = [{name: []} for name in SCHEMES]
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            if path in PUBLIC_PATHS:
                operation["security"] = []
                for status in ("401", "429"):
                    answers.pop(status, None)
                continue
            # Every call looks its key up in the database, which may be unavailable.
            for status in (
                HTTPStatus.SERVICE_UNAVAILABLE,
                *(() if method in SAFE_METHODS else (HTTPStatus.FORBIDDEN,)),
            ):
                answers.setdefault(str(status.value), {**answers["401"], "description": status_description(status)})
            for status, answer in answers.items():
                if status != "401":
                    answer["headers"] = {**RATE_LIMIT_HEADERS, **answer.get("headers", {})}
            answers["303"] = SIGN_IN_REDIRECT


def complete_openapi(openapi: dict[str, Any]) -> None:
    """Add the tags in use and the headers of every response, and share what many operations have in common."""
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
    """Return a response with its headers in `headers`; a reference into `answers` if it is a shared one."""
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
