"""The fields of a form, read from the JSON schema of the model that checks them, so that nothing is said twice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.figures import format_number

Schema = Mapping[str, Any]

BEYOND_REACH = 1e6


@dataclass(frozen=True)
class FormField:
    """One input: its path in the body, and what the model says about it.

    `step` is what an arrow key changes; `kinds` are the kinds of policy that have it, none where all do.
    """

    path: str
    name: str
    type: str
    description: str
    bounds: str
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    step: str
    default: Any
    required: bool
    kinds: tuple[str, ...] = ()

    @property
    def hint(self) -> str:
        """What belongs in it: the description with the bounds."""
        return "; ".join(part for part in (self.description, self.bounds) if part)


def form_field(name: str, schema: Schema, *, path: str = "", required: bool = False) -> FormField:
    """The field that a property's schema describes; one that may be null counts as the other type."""
    inner: Schema = next((part for part in schema.get("anyOf", ()) if part.get("type") != "null"), {})
    said: dict[str, Any] = {**inner, **{key: value for key, value in schema.items() if key != "anyOf"}}
    maximum = said.get("maximum", said.get("exclusiveMaximum"))
    return FormField(
        path=path or name,
        name=name,
        type="choice" if "enum" in said else said.get("type", "string"),
        description=said.get("description", ""),
        bounds=_bounds(said),
        choices=tuple(said.get("enum", ())),
        minimum=said.get("minimum", said.get("exclusiveMinimum")),
        maximum=maximum,
        step="1" if said.get("type") == "integer" else _step(maximum, said.get("description", "")),
        default=said.get("default"),
        required=required,
    )


def fields_of(schema: Schema, *, prefix: str = "") -> tuple[FormField, ...]:
    """All properties of an object; paths begin with `prefix`."""
    return tuple(
        form_field(name, property_, path=prefix + name, required=name in schema.get("required", ()))
        for name, property_ in schema["properties"].items()
    )


def _bounds(said: Schema) -> str:
    parts = [
        f"{words} {format_number(float(said[key]))}"
        for key, words in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        # Of two lower bounds "above 0" says it all, and an upper one that nobody comes near says nothing.
        if key in said and not (key == "minimum" and "exclusiveMinimum" in said) and said[key] < BEYOND_REACH
    ]
    return ", ".join(parts)


def _step(maximum: float | None, description: str) -> str:
    if (maximum is not None and maximum <= 1) or description.startswith("In ρ"):
        return "0.05"
    return "10" if "gCO2e" in description else "any"
