"""Reads a policy from a request's body, and names every field that is wrong."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from greencore.policy.errors import FieldError, PolicyError
from greencore.policy.models import KINDS, AnyPolicy, Policy, PolicyBody

_BODY: TypeAdapter[AnyPolicy] = TypeAdapter(PolicyBody)
_FORMS = {"tuple_type": "expected a list", "model_type": "expected an object"}


def parse_policy(body: Mapping[str, object]) -> Policy:
    """The policy that `body` describes: `{"kind": ..., ...}`, as JSON values.

    Raises PolicyError, whose errors name each field by its path, for an unknown kind, a missing or unknown
    field, a number out of its range, and for fields that contradict each other.
    """
    if not isinstance(body, Mapping):
        raise PolicyError([FieldError("policy", f"given {body!r}: expected an object with a kind")])
    try:
        return _BODY.validate_python(dict(body))
    except ValidationError as error:
        raise PolicyError([_field_error(details) for details in error.errors()]) from error


def _field_error(details: ErrorDetails) -> FieldError:
    if details["type"] in ("union_tag_invalid", "union_tag_not_found"):
        body: Any = details["input"]
        given = f"given {body['kind']!r}" if "kind" in body else "missing"
        return FieldError("kind", f"{given}: expected one of {', '.join(KINDS)}")
    # The location begins with the kind, and after on_missing comes its form: neither is part of the path.
    location = list(details["loc"][1:])
    if location[:1] == ["on_missing"] and len(location) > 1:
        del location[1]
    if details["type"] == "policy":
        context = details.get("ctx", {})
        return FieldError(_path([*location, str(context["field"])]), str(context["message"]))
    message = _FORMS.get(details["type"], details["msg"][0].lower() + details["msg"][1:])
    given = details["input"]
    if isinstance(given, str | int | float | None) and details["type"] != "missing":
        message = f"given {given!r}: {message}"
    return FieldError(_path(location), message)


def _path(location: list[int | str]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
