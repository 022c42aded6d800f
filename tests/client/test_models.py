"""The client's models match the OpenAPI description, field by field."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from greentune import models
from greentune.models import Answer

SCHEMAS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "api" / "openapi.json").read_text())["components"][
    "schemas"
]
MODELS = sorted((getattr(models, name) for name in models.__all__), key=str)
ANSWERS = [model for model in MODELS if isinstance(model, type) and issubclass(model, Answer) and model is not Answer]


def described(name: str) -> Any:
    return SCHEMAS[f"{name}Out" if f"{name}Out" in SCHEMAS else name]


def form(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return the type of a schema without its title, description and name: equal types accept the same values."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        target = definitions[name]
        # Each object has its own test.
        return ("object", name.removesuffix("Out")) if "properties" in target else form(target, definitions)
    if "anyOf" in schema:
        return ("any of", frozenset(form(choice, definitions) for choice in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ("one of", frozenset(map(str, schema.get("enum") or [schema["const"]])))
    if schema.get("type") == "array":
        return ("list", form(schema["items"], definitions))
    if schema.get("type") == "object":
        values = schema.get("additionalProperties", True)
        return ("dict", "anything" if values in (True, {}) else form(values, definitions))
    return (schema["type"], schema.get("format"))


@pytest.mark.parametrize("model", ANSWERS, ids=lambda model: model.__name__)
def test_every_field_is_of_the_described_type(model: type[Answer]) -> None:
    own = TypeAdapter(model).json_schema(by_alias=True, mode="serialization")
    theirs = described(model.__name__)
    for name, schema in own["properties"].items():
        assert name in theirs["properties"], f"{model.__name__}.{name} is not in the description"
        expected = form(theirs["properties"][name], SCHEMAS)
        assert form(schema, own.get("$defs", {})) == expected, f"{model.__name__}.{name}"


def test_the_states_and_actions_are_those_of_the_description() -> None:
    assert TypeAdapter(models.JobStatus).json_schema()["enum"] == SCHEMAS["JobStatus"]["enum"]
    assert TypeAdapter(models.Action).json_schema()["enum"] == SCHEMAS["Action"]["enum"]


def test_fields_of_a_newer_service_are_ignored() -> None:
    assert models.Figure.model_validate({"expected": 1, "low": 0.5, "high": 2, "median": 1}).high == 2
