"""Form fields, read from the JSON schema of the model that validates them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.figures import format_number

Schema = Mapping[str, Any]

MAX_SHOWN_BOUND = 1e6


@dataclass(frozen=True)
class FormField:
    """One input: its path in the body, and what the model's schema says about it.

    `hint` is the description with the bounds, `step` the increment of an arrow key; `kinds` lists the policy kinds that
    have the field, empty where all do.
    """

    path: str
    name: str
    type: str
    hint: str
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    step: str
    default: Any
    kinds: tuple[str, ...] = ()


def form_field(name: str, schema: Schema, *, path: str = "") -> FormField:
    """Return the field that a property's schema describes; a nullable one has its other type."""
    inner: Schema = next((part for part in schema.get("anyOf", ()) if part.get("type") != "null"), {})
    merged: dict[str, Any] = {**inner, **{key: value for key, value in schema.items() if key != "anyOf"}}
    maximum = merged.get("maximum", merged.get("exclusiveMaximum"))
    return FormField(
        path=path or name,
        name=name,
        type="choice" if "enum" in merged else merged.get("type", "string"),
        hint="; ".join(part for part in (merged.get("description"), _format_bounds(merged)) if part),
        choices=tuple(merged.get("enum", ())),
        minimum=merged.get("minimum", merged.get("exclusiveMinimum")),
        maximum=maximum,
        step="1" if merged.get("type") == "integer" else _step(maximum, merged.get("description", "")),
        default=merged.get("default"),
    )


def fields_of(schema: Schema, *, prefix: str = "") -> tuple[FormField, ...]:
    """Return the fields of all properties of an object; `prefix` comes before each path."""
    return tuple(form_field(name, part, path=prefix + name) for name, part in schema["properties"].items())


def _format_bounds(schema: Schema) -> str:
    parts = [
        f"{words} {format_number(float(schema[key]))}"
        for key, words in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        # "above 0" makes "at least" redundant, and a very large upper bound is not worth its place.
        if key in schema and not (key == "minimum" and "exclusiveMinimum" in schema) and schema[key] < MAX_SHOWN_BOUND
    ]
    return ", ".join(parts)


def _step(maximum: float | None, description: str) -> str:
    if (maximum is not None and maximum <= 1) or description.startswith("In ρ"):
        return "0.05"
    return "10" if "gCO2e" in description else "any"
