"""What a reader wants to know of each operation, taken out of an OpenAPI description."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Field:
    """One parameter, or one field of a body."""

    name: str
    type: str
    required: bool
    description: str


@dataclass(frozen=True)
class Answer:
    """One status that an operation answers with."""

    status: str
    description: str
    type: str


@dataclass(frozen=True)
class Operation:
    """One call."""

    group: str
    method: str
    path: str
    summary: str
    description: str
    parameters: list[Field]
    body: list[Field]
    answers: list[Answer]


def operations(openapi: Schema) -> list[tuple[str, list[Operation]]]:
    """Every operation, in the order of the routes, grouped by tag."""
    schemas = openapi["components"]["schemas"]
    found = [
        _operation(method, path, operation, schemas)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    return [(group, list(members)) for group, members in groupby(found, key=lambda operation: operation.group)]


@dataclass(frozen=True)
class Shape:
    """One object that goes in or comes out, or a list of words without fields."""

    name: str
    description: str
    fields: list[Field]


def shapes(openapi: Schema) -> list[Shape]:
    """Every named schema of the description, by name."""
    return [
        Shape(name, schema.get("description", ""), _fields(schema))
        if "properties" in schema
        else Shape(name, type_name(schema), [])
        for name, schema in sorted(openapi["components"]["schemas"].items())
    ]


def type_name(schema: Schema) -> str:
    """A schema in a few words: `string`, `list of EpochOut`, `string or null`."""
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


def _operation(method: str, path: str, operation: Schema, schemas: Schema) -> Operation:
    return Operation(
        group=operation["tags"][0],
        method=method.upper(),
        path=path,
        summary=operation.get("summary", ""),
        description=operation.get("description", ""),
        parameters=[
            Field(
                name=parameter["name"],
                type=type_name(parameter["schema"]),
                required=parameter.get("required", False),
                description=parameter.get("description", ""),
            )
            for parameter in operation.get("parameters", [])
        ],
        body=_body(operation, schemas),
        answers=[
            Answer(status, response["description"], _content_type_name(response))
            for status, response in operation["responses"].items()
        ],
    )


def _body(operation: Schema, schemas: Schema) -> list[Field]:
    contents = operation.get("requestBody", {}).get("content", {}).values()
    return [field for content in contents for field in _fields(_resolved(content["schema"], schemas))]


def _resolved(schema: Schema, schemas: Schema) -> Schema:
    found: Schema = schemas[type_name(schema)] if "$ref" in schema else schema
    return found


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


def _content_type_name(response: Schema) -> str:
    for content in response.get("content", {}).values():
        return type_name(content.get("schema", {}))
    return ""
