"""What the OpenAPI description says of access: how a key is sent, and which calls need none."""

from typing import Any

from api.access.authentication import UNLIMITED


def describe(openapi: dict[str, Any]) -> None:
    """State the key that every call needs, and leave the answers about it away where none is needed."""
    scheme = {"type": "http", "scheme": "bearer", "description": "A key, as `Authorization: Bearer gtk_…`"}
    openapi["components"].setdefault("securitySchemes", {})["key"] = scheme
    openapi["security"] = [{"key": []}]
    for path in UNLIMITED:
        for operation in openapi["paths"][path].values():
            operation["security"] = []
            for status in ("401", "429"):
                operation["responses"].pop(status, None)
