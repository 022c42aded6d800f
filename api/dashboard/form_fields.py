"""Form fields, read from the JSON schema of the model that validates them."""

from dataclasses import dataclass, replace
from typing import Any

from greencore.settings.fields import (
    Schema,
    SettingField,
    SettingGroup,
    format_value,
    label_of,
    read_setting,
    without_null,
)

__all__ = ["FieldGroup", "FormField", "Schema", "field_groups", "fields_of", "form_field"]

SET_BY_AUTO = {("learning_rate",)}  # left empty, so that the method `auto` tells what was asked for from its default


@dataclass(frozen=True)
class FormField:
    """One input: its path in the body, and what the model's schema says about it.

    `type` is "choice", "integer", "number" or "string"; `types`, `words` and `hint` are those of `SettingField`. `step`
    is the increment of an arrow key; `kinds` lists the policy kinds that have the field, empty where all do. An
    `optional` input is left empty where the setting has its default; a `multiline` one takes line breaks.
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
    types: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    optional: bool = False
    multiline: bool = False
    kinds: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return label_of(self.name)

    @property
    def shown_default(self) -> str:
        return format_value(self.default)


@dataclass(frozen=True)
class FieldGroup:
    """Inputs that are shown together; `path`, `title`, `description` and `methods` are those of `SettingGroup`."""

    path: str
    title: str
    description: str
    methods: tuple[str, ...]
    fields: tuple[FormField, ...]


def form_field(name: str, schema: Schema, *, path: str = "") -> FormField:
    """Return the field that a property's schema describes; a nullable one has its other type."""
    return _of_setting(read_setting(schema, path=(name,)), path=path or name)


def fields_of(schema: Schema, *, prefix: str = "") -> tuple[FormField, ...]:
    """Return the fields of all properties of an object; `prefix` comes before each path."""
    return tuple(form_field(name, part, path=prefix + name) for name, part in schema["properties"].items())


def field_groups(groups: tuple[SettingGroup, ...], *, prefix: str) -> list[FieldGroup]:
    """Return the inputs of groups of settings; `prefix` comes before each path."""
    return [
        FieldGroup(
            path=prefix + ".".join(group.path) if group.path else "",
            title=group.title,
            description=without_null(group.description),
            methods=group.methods,
            fields=tuple(
                replace(
                    _of_setting(field, path=prefix + ".".join(field.path)),
                    optional=group.optional or field.path in SET_BY_AUTO,
                )
                for field in group.fields
            ),
        )
        for group in groups
    ]


def _of_setting(setting: SettingField, *, path: str) -> FormField:
    numeric = [kind for kind in ("integer", "number") if setting.types == (kind,) and not setting.words]
    return FormField(
        path=path,
        name=setting.name,
        type="choice" if setting.choices else numeric[0] if numeric else "string",
        hint=setting.hint,
        choices=setting.choices,
        minimum=setting.minimum,
        maximum=setting.maximum,
        step="1" if numeric == ["integer"] else _step(setting.maximum, setting.description),
        default=setting.default,
        types=setting.types,
        words=setting.words,
        multiline=setting.multiline,
    )


def _step(maximum: float | None, description: str) -> str:
    if (maximum is not None and maximum <= 1) or description.startswith("In ρ"):
        return "0.05"
    return "10" if "gCO2e" in description else "any"
