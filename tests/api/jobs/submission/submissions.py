"""A policy that submissions have, and what a refused one says."""

from typing import Any

STEPS = {"kind": "steps", "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 300, "rho": 0.7}, {"rho": 0.2}]}


def error_fields(response: Any) -> list[str]:
    """Return the fields that a refusal names."""
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return [error["field"] for error in response.json()["errors"]]


def error_message(response: Any) -> str:
    """Return the first message of a refusal."""
    return str(response.json()["errors"][0]["message"])
