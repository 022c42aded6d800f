"""Extracts operations, responses and schemas from an OpenAPI description for the reference page."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

Schema = Mapping[str, Any]
COMMON_HEADERS = ("X-Request-Id", "RateLimit-")  # shown once for all


@dataclass(frozen=True)
class Field:
    """One parameter, or one field of a body."""

    name: str
    type: str
    required: bool
    description: str


@dataclass(frozen=True)
class ResponseDoc:
    """One response of an operation."""

    status: str
    description: str
    headers: str
    type: str


@dataclass(frozen=True)
class Operation:
    """One operation of the API."""

    group: str
    method: str
    path: str
    summary: str
    description: str
    parameters: list[Field]
    body: list[Field]
    responses: list[ResponseDoc]
    open: bool


def list_operations(openapi: Schema) -> list[tuple[str, list[Operation]]]:
    """Return all operations, grouped by tag in the order of the tags, without the common responses."""
    shared = {answer.status for answer in common_responses(openapi)}
    found = [
        _operation(method, path, operation, openapi, shared)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    order = [tag["name"] for tag in openapi.get("tags", [])]
    found.sort(key=lambda operation: order.index(operation.group) if operation.group in order else len(order))
    return [(group, list(members)) for group, members in groupby(found, key=lambda operation: operation.group)]


def common_responses(openapi: Schema) -> list[ResponseDoc]:
    """Return the responses that all operations with a key have in common."""
    with_key = [
        operation["responses"]
        for methods in openapi["paths"].values()
        for operation in methods.values()
        if not _is_open(operation)
    ]
    shared = set.intersection(*(set(responses) for responses in with_key)) if len(with_key) > 1 else set()
    return [_response_doc(status, with_key[0][status], openapi) for status in sorted(shared)]


def security_schemes(openapi: Schema) -> list[tuple[str, str]]:
    """Return the name and the description of each security scheme."""
    schemes = openapi["components"].get("securitySchemes", {})
    return [(name, scheme.get("description", "")) for name, scheme in schemes.items()]


@dataclass(frozen=True)
class SchemaDoc:
    """One schema: an object with fields, or an enumeration without."""

    name: str
    description: str
    fields: list[Field]


def list_schemas(openapi: Schema) -> list[SchemaDoc]:
    """Return all named schemas of the description, by name."""
    return [
        SchemaDoc(name, schema.get("description", ""), _fields(schema))
        if "properties" in schema
        else SchemaDoc(name, type_name(schema), [])
        for name, schema in sorted(openapi["components"]["schemas"].items())
    ]


def type_name(schema: Schema) -> str:
    """Return a short name of a schema's type: `string`, `list of EpochOut`, `string or null`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(dict.fromkeys(type_name(option) for option in schema[union]))
    if schema.get("type") == "array":
        return f"list of {type_name(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or "any")


def _operation(method: str, path: str, operation: Schema, openapi: Schema, shared: set[str]) -> Operation:
    is_open = _is_open(operation)
    contents = operation.get("requestBody", {}).get("content", {}).values()
    return Operation(
        group=operation["tags"][0],
        method=method.upper(),
        path=path,
        summary=operation.get("summary", ""),
        description=operation.get("description", ""),
        parameters=[
            Field(each["name"], type_name(each["schema"]), each.get("required", False), each.get("description", ""))
            for each in operation.get("parameters", [])
        ],
        body=[field for content in contents for field in _fields(_resolved(content["schema"], openapi))],
        responses=[
            _response_doc(status, response, openapi)
            for status, response in operation["responses"].items()
            if is_open or status not in shared
        ],
        open=is_open,
    )


def _is_open(operation: Schema) -> bool:
    return operation.get("security") == []


def _response_doc(status: str, response: Schema, openapi: Schema) -> ResponseDoc:
    answer = _resolved(response, openapi)
    telling = [name for name in answer.get("headers", {}) if not name.startswith(COMMON_HEADERS)]
    contents = answer.get("content", {}).items()
    types = [f"{type_name(content.get('schema', {}))} ({kind})" for kind, content in contents]
    return ResponseDoc(status, answer["description"], ", ".join(telling), " or ".join(types))


def _resolved(part: Schema, openapi: Schema) -> Schema:
    """Return the target of a reference such as `#/components/schemas/JobOut`, else the part itself."""
    found: Any = openapi if "$ref" in part else part
    for step in part.get("$ref", "").split("/")[1:]:
        found = found[step]
    resolved: Schema = found
    return resolved


def _fields(schema: Schema) -> list[Field]:
    required = schema.get("required", [])
    return [
        Field(name, type_name(field), name in required, _about(field))
        for name, field in schema.get("properties", {}).items()
    ]


def _about(field: Schema) -> str:
    about = str(field.get("description", ""))
    if field.get("default") is None:
        return about
    default = f"default {json.dumps(field['default'])}"
    return f"{about} ({default})" if about else default
