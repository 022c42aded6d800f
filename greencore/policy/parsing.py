"""Parses a policy from a request's body, with an error for every invalid field."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from reprlib import Repr
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from greencore.policy.kinds.by_intensity import MAX_STEPS
from greencore.policy.kinds.policy import Policy
from greencore.policy.models import POLICY_KINDS, AnyPolicy, PolicyBody

_BODY: TypeAdapter[AnyPolicy] = TypeAdapter(PolicyBody)
# More than any kind of policy has.
MAX_FIELDS = 30
MAX_DEPTH = 3
MAX_SHOWN_CHARACTERS = 200
_short = Repr()
_short.maxstring = _short.maxother = MAX_SHOWN_CHARACTERS
_FORMS = {"tuple_type": "expected a list", "model_type": "expected an object"}


@dataclass(frozen=True, slots=True)
class FieldError:
    """Error in one field: its path in the policy, such as `steps[1].rho`, and the expected value."""

    field: str
    message: str


class PolicyError(ValueError):
    """A policy is invalid; `.errors` lists every error found, at least one."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in errors))
        self.errors = list(errors)


def parse_policy(body: Mapping[str, object]) -> Policy:
    """Parse the policy `{"kind": ..., ...}` from JSON values.

    Raises PolicyError, whose errors name each field by its path, for an unknown kind, a missing or unknown field, a
    number out of its range, and for fields that contradict each other. A list or an object that is longer than any
    policy's is one error, whatever its content.
    """
    if not isinstance(body, Mapping):
        raise PolicyError([FieldError("policy", f"given {_short.repr(body)}: expected an object with a kind")])
    too_long = list(_too_long(body))
    if too_long:
        raise PolicyError(too_long)
    return parse_stored_policy(body)


def parse_stored_policy(body: Mapping[str, object]) -> Policy:
    """Parse a stored policy, without the length limits of `parse_policy`. Raises PolicyError."""
    try:
        return _BODY.validate_python(dict(body))
    except ValidationError as error:
        raise PolicyError([_field_error(details) for details in error.errors()]) from error


def _too_long(value: object, path: str = "") -> Iterator[FieldError]:
    """Yield an error for every list and object that is too long, down to the depth of a policy."""
    if isinstance(value, Mapping | list | tuple):
        most = MAX_FIELDS if isinstance(value, Mapping) else MAX_STEPS
        if len(value) > most:
            what = "fields" if isinstance(value, Mapping) else "items"
            yield FieldError(path or "policy", f"given {len(value):,} {what}: expected at most {most}")
        elif path.count(".") + path.count("[") < MAX_DEPTH:
            parts = value.items() if isinstance(value, Mapping) else enumerate(value)
            for part, item in parts:
                yield from _too_long(item, _path([path, part] if path else [part]))


def _field_error(details: ErrorDetails) -> FieldError:
    if details["type"] in ("union_tag_invalid", "union_tag_not_found"):
        body: Any = details["input"]
        given = f"given {_short.repr(body['kind'])}" if "kind" in body else "missing"
        return FieldError("kind", f"{given}: expected one of {', '.join(POLICY_KINDS)}")
    # The location starts with the kind, and its form follows on_missing: neither is part of the path.
    location = list(details["loc"][1:])
    if location[:1] == ["on_missing"] and len(location) > 1:
        del location[1]
    if details["type"] == "policy":
        context = details.get("ctx", {})
        return FieldError(_path([*location, str(context["field"])]), str(context["message"]))
    message = _FORMS.get(details["type"], details["msg"][0].lower() + details["msg"][1:])
    given = details["input"]
    if isinstance(given, str | int | float | None) and details["type"] != "missing":
        message = f"given {_short.repr(given)}: {message}"
    return FieldError(_path(location), message)


def _path(location: list[int | str]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{_cut(part)}" if path else _cut(part)
    return path


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
