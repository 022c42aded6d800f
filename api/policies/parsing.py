"""Reads an inline policy, and places its faults in the request."""

from collections.abc import Mapping
from typing import Any

from api.problems import FieldProblem, invalid_fields
from greencore.policy import Policy, PolicyError, parse_policy


def read_policy(body: Mapping[str, Any]) -> Policy:
    """The policy in a request's field `policy`; raises the 422 that names each fault by its path in the request."""
    try:
        return parse_policy(body)
    except PolicyError as error:
        raise invalid_fields(
            [FieldProblem(field=f"policy.{fault.field}", message=fault.message) for fault in error.errors]
        ) from error
