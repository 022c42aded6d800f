"""Settings of a pydantic model as flat fields: what options, form inputs and reference pages are made from.

A setting's group is `json_schema_extra={"group": TITLE}`; settings without one are the common ones. A nested model is a
group of its own, and `{"methods": NAMES}` says that it applies to these alone; `{"multiline": True}` that a text
may have several lines.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

Schema = Mapping[str, Any]

SWITCH_WORDS = {"on": True, "off": False, "true": True, "false": False}
MAX_SHOWN_BOUND = 1e6
_NULL = re.compile(r"\bnull\b")


@dataclass(frozen=True)
class SettingField:
    """One setting, as its JSON schema describes it.

    `path` are its names from the outermost model; `types` its JSON types without null and text that is one of `words`,
    the texts that it takes; `bounds` are its limits in words, empty without any; `multiline` says that a text may have
    several lines.
    """

    path: tuple[str, ...]
    types: tuple[str, ...]
    words: tuple[str, ...]
    default: Any
    description: str
    bounds: str
    minimum: float | None = None
    maximum: float | None = None
    multiline: bool = False

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def choices(self) -> tuple[str, ...]:
        """All values, as texts; empty where there are more than can be listed."""
        if set(self.types) <= {"boolean"}:
            return (*self.words, "on", "off") if self.types else self.words
        return ()

    @property
    def shown_default(self) -> str:
        """The default as a text that `parse` takes; empty for None."""
        return format_value(self.default)

    @property
    def hint(self) -> str:
        """The description, the bounds, and how to write a value that is neither a choice nor one number or text."""
        notation = [f"or “{word}”" for word in self.words] if not self.choices else []
        if "array" in self.types:
            notation.insert(0, "separated by commas")
        return "; ".join(part for part in (without_null(self.description), self.bounds, " ".join(notation)) if part)

    def parse(self, text: str) -> Any:
        """Return the value of a text; one of a wrong type stays a text, which the model's validation then refuses.

        White space around it is part of a setting that is a text, and of no other.
        """
        given, text = text, text.strip()
        if text in self.words:
            return text
        if "boolean" in self.types and text in SWITCH_WORDS:
            return SWITCH_WORDS[text]
        if "array" in self.types:
            return [part.strip() for part in text.split(",") if part.strip()]
        for kind, convert in (("integer", int), ("number", float)):
            if kind in self.types:
                try:
                    return convert(text)
                except ValueError:
                    continue
        return given if "string" in self.types else text


@dataclass(frozen=True)
class SettingGroup:
    """Settings that are shown together.

    `path` is that of a nested model, else empty, and so are `title` for the common settings and `methods` for a group
    of every method. `optional`: None as a whole unless one of its settings is given.
    """

    title: str
    path: tuple[str, ...]
    description: str
    methods: tuple[str, ...]
    optional: bool
    fields: tuple[SettingField, ...]


def list_setting_groups(model: type[BaseModel]) -> tuple[SettingGroup, ...]:
    """Return the groups of a model's settings in the order of its fields, the common ones first."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    flat: dict[str, list[SettingField]] = {"": []}
    nested: list[SettingGroup] = []
    for name, part in schema["properties"].items():
        inner = _nested_model(part, definitions)
        if inner is None:
            flat.setdefault(part.get("group", ""), []).append(read_setting(part, path=(name,)))
        else:
            nested.append(_nested_group(name, part, inner))
    groups = [
        SettingGroup(title=title, path=(), description="", methods=(), optional=False, fields=tuple(fields))
        for title, fields in flat.items()
        if fields
    ]
    return (*groups, *nested)


def list_settings(model: type[BaseModel]) -> tuple[SettingField, ...]:
    """Return all settings of a model, group by group."""
    return tuple(field for group in list_setting_groups(model) for field in group.fields)


def read_setting(schema: Schema, *, path: tuple[str, ...]) -> SettingField:
    """Return the setting that a property's schema describes."""
    variants = [part for part in schema.get("anyOf", (schema,)) if part.get("type") != "null"]
    plain = [part for part in variants if "enum" not in part and "const" not in part]
    words = [word for part in variants for word in part.get("enum", [part["const"]] if "const" in part else [])]
    limits = {key: value for part in [*plain, schema] for key, value in part.items()}
    return SettingField(
        path=path,
        types=tuple(part.get("type", "string") for part in plain),
        words=tuple(words),
        default=schema.get("default"),
        description=schema.get("description", ""),
        bounds=_format_bounds(limits),
        minimum=limits.get("minimum", limits.get("exclusiveMinimum")),
        maximum=limits.get("maximum", limits.get("exclusiveMaximum")),
        multiline=schema.get("multiline", False),
    )


def without_null(description: str) -> str:
    """Return a description for an option or an input, where null is a value that is not set."""
    return _NULL.sub("not set", description)


def label_of(name: str) -> str:
    """Return a field's name as the label of its input."""
    return name.replace("_", " ").capitalize()


def format_value(value: Any) -> str:
    """Return a setting's value as a text; empty for None."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float) and abs(value) < MAX_SHOWN_BOUND and value.is_integer():
        return str(int(value))  # 1.0 and 1 are one value of a setting, and one text
    return "" if value is None else str(value)


def _nested_model(schema: Schema, definitions: Schema) -> Schema | None:
    """Return the schema of the model that a property holds, None for any other property."""
    for part in (schema, *schema.get("anyOf", ())):
        if "$ref" in part:
            found: Schema = definitions[part["$ref"].rsplit("/", 1)[-1]]
            return found if "properties" in found else None
    return None


def _nested_group(name: str, schema: Schema, inner: Schema) -> SettingGroup:
    given = schema.get("default") or {}
    properties = {
        key: part | {"default": given.get(key, part.get("default"))} for key, part in inner["properties"].items()
    }
    return SettingGroup(
        title=schema.get("title", label_of(name)),
        path=(name,),
        description=schema.get("description", inner.get("description", "")),
        methods=tuple(schema.get("methods", ())),
        optional="anyOf" in schema,
        fields=tuple(read_setting(part, path=(name, key)) for key, part in properties.items()),
    )


def _format_bounds(schema: Schema) -> str:
    parts = [
        f"{words} {schema[key]:g}"
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
