"""Adds access to the OpenAPI description: security schemes, public calls and refusals."""

from http import HTTPStatus
from typing import Any

from api.access.authentication_middleware import PUBLIC_PATHS
from api.access.sessions import SESSION_COOKIE
from api.http.problems import status_description

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
