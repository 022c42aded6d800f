"""Reads a policy from a request's body, and names every field that is wrong."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from greencore.policy.errors import FieldError, PolicyError
from greencore.policy.models import Constant, Linear, Policy, PolicyBody, Steps

KINDS = ("constant", "steps", "linear")
KINDS_TO_COME = ("percentile", "budget", "price")
FIELDS_TO_COME = ("gate", "smoothing")

_BODY: TypeAdapter[Constant | Steps | Linear] = TypeAdapter(PolicyBody)


def parse_policy(body: Mapping[str, object]) -> Policy:
    """The policy that `body` describes: `{"kind": ..., ...}`, as JSON values.

    Raises PolicyError, whose errors name each field by its path, for an unknown kind, a missing or unknown
    field, a ρ outside (0, 1], bounds that do not ascend, and for kinds and fields that are not supported yet.
    """
    if not isinstance(body, Mapping):
        raise PolicyError([FieldError("policy", f"given {body!r}: expected an object with a kind")])
    errors = [FieldError(field, "not supported yet") for field in FIELDS_TO_COME if field in body]
    kind = body.get("kind")
    if kind in KINDS_TO_COME:
        raise PolicyError([FieldError("kind", f"{kind!r} is not supported yet: {_expected_kinds()}"), *errors])
    try:
        policy = _BODY.validate_python({key: body[key] for key in body if key not in FIELDS_TO_COME})
    except ValidationError as error:
        raise PolicyError([*(_field_error(details) for details in error.errors()), *errors]) from error
    if errors:
        raise PolicyError(errors)
    return policy


def _field_error(details: ErrorDetails) -> FieldError:
    if details["type"] in ("union_tag_invalid", "union_tag_not_found"):
        body: Any = details["input"]
        given = f"given {body['kind']!r}" if "kind" in body else "missing"
        return FieldError("kind", f"{given}: {_expected_kinds()}")
    if details["type"] == "policy":
        context = details.get("ctx", {})
        return FieldError(str(context["field"]), str(context["message"]))
    # The location begins with the kind, and after on_missing comes its form: neither is part of the path.
    location = list(details["loc"][1:])
    if location[:1] == ["on_missing"] and len(location) > 1:
        del location[1]
    message = details["msg"][0].lower() + details["msg"][1:]
    if details["type"] == "tuple_type":
        message = "expected a list"
    given = details["input"]
    if isinstance(given, str | int | float | None) and details["type"] != "missing":
        message = f"given {given!r}: {message}"
    return FieldError(_path(location), message)


def _path(location: list[int | str]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _expected_kinds() -> str:
    return f"expected one of {', '.join(KINDS)}"
