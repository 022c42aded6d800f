"""What the OpenAPI description says of access: how a key is sent, which calls need none, and how others are refused."""

from http import HTTPStatus
from typing import Any

from api.access.authentication import PUBLIC_PATHS
from api.access.sessions import SESSION_COOKIE
from api.http.problems import status_description

SAFE_METHODS = ("get", "head")
SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "A key, as `Authorization: Bearer gtk_…`"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": "Of a browser that signed in at `/sign-in`; it changes something only from this service's pages",
    },
}
RATE_LIMIT_HEADERS: dict[str, Any] = {
    name: {"description": description, "schema": {"type": "integer", "minimum": 0}}
    for name, description in (
        ("RateLimit-Limit", "Requests of this key in a minute"),
        ("RateLimit-Remaining", "How many of them are left"),
        ("RateLimit-Reset", "Seconds until there are more"),
    )
}
SIGN_IN_REDIRECT = {
    "description": "To `/sign-in`, where a browser asks for a page and nobody has signed in",
    "headers": {"Location": {"schema": {"type": "string"}}},
}


def document_access(openapi: dict[str, Any]) -> None:
    """State the key or session that every call needs, and what calls answer that lack it."""
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
            # The database that does not answer is the one that knows the keys: it is asked by every call.
            for status in (
                HTTPStatus.SERVICE_UNAVAILABLE,
                *(() if method in SAFE_METHODS else (HTTPStatus.FORBIDDEN,)),
            ):
                answers.setdefault(str(status.value), {**answers["401"], "description": status_description(status)})
            for status, answer in answers.items():
                if status != "401":
                    answer["headers"] = {**RATE_LIMIT_HEADERS, **answer.get("headers", {})}
            answers["303"] = SIGN_IN_REDIRECT
