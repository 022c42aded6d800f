"""Parses the policy that a request contains or names, and locates its faults in the request."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from api.http.problems import FieldProblem, invalid_field, invalid_fields
from greencore.policy import Policy, PolicyError, parse_policy, parse_stored_policy
from store.repositories.policies import PolicyRepository

MAX_NAMED = 20


def parse_request_policy(body: Mapping[str, Any]) -> Policy:
    """Parse a request's field `policy`; raises the 422 that names each fault by its path in the request."""
    try:
        return parse_policy(body)
    except PolicyError as error:
        raise invalid_fields(
            [FieldProblem(field=f"policy.{fault.field}", message=fault.message) for fault in error.errors]
        ) from error


def resolve_policy(choice: str | Mapping[str, Any], session: Session) -> Policy:
    """Return the policy that a request's field `policy` contains or names; raises the 422 that names its faults."""
    if not isinstance(choice, str):
        return parse_request_policy(choice)
    policies = PolicyRepository(session)
    stored = policies.latest(choice)
    if stored is None:
        known = ", ".join(policies.names(limit=MAX_NAMED)) or "none"
        raise invalid_field("policy", f"there is no policy named {choice!r}: known are {known}")
    return parse_stored_policy(stored.body)
