"""Request and response models of policies, and the policy that a request contains or names."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from sqlalchemy.orm import Session

from api.http.problems import FieldProblem, invalid_field, invalid_fields
from api.row_model import RowModel
from greencore.policy import Policy, PolicyBody, PolicyError, parse_policy, parse_stored_policy
from greencore.text import check_storable
from store.repositories.policies import PolicyRepository
from store.tables import Policy as StoredPolicy

LONGEST_NAME = 63
MAX_NAMED = 20
PolicyName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="Lower-case letters, digits, `.`, `_` and `-`"),
]


StoredName = Annotated[str, Field(max_length=LONGEST_NAME)]


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("expected a policy as an object")
    return value


def _name_or_object(value: object) -> str | dict[str, Any]:
    if not isinstance(value, str | dict):
        raise ValueError("expected the name of a stored policy, or a policy as an object")
    if isinstance(value, str) and len(value) > LONGEST_NAME:
        raise ValueError(f"given {len(value)} characters: the name of a policy has at most {LONGEST_NAME}")
    return check_storable(value) if isinstance(value, str) else value


# Only described here: `parse_policy` validates the body, since it names fields without the union's own parts.
InlinePolicy = Annotated[dict[str, Any], PlainValidator(_object, json_schema_input_type=PolicyBody)]
PolicyChoice = Annotated[
    str | dict[str, Any], PlainValidator(_name_or_object, json_schema_input_type=StoredName | PolicyBody)
]
EXAMPLE: dict[str, Any] = {
    "kind": "linear",
    "clean": 100,
    "dirty": 400,
    "rho_max": 1.0,
    "rho_min": 0.4,
    "gate": {"mode": "defer", "max_delay_hours": 12},
}


class NewPolicy(BaseModel):
    """A policy to store under a name, as its next version."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "green-nights", "policy": EXAMPLE}]}
    )

    name: PolicyName
    policy: InlinePolicy


class NextPolicy(BaseModel):
    """The next version of the policy that the path names."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"policy": EXAMPLE}]})

    policy: InlinePolicy


class PolicyOut(RowModel):
    """The newest version of a named policy; jobs keep the version that they were submitted with."""

    name: str
    version: int
    policy: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, policy: StoredPolicy) -> "PolicyOut":
        """Build from a stored policy."""
        return cls.from_row(policy, policy=policy.body)


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
