"""mkdocs hook: writes the reference of the hyperparameters, from their schema, where a page asks for it."""

import json
from typing import Any

from pydantic import BaseModel

from cli.hyperparameters import COMMON_TITLE
from greencore.settings.fields import SettingField, SettingGroup, list_setting_groups
from greencore.settings.hyperparameters import Hyperparameters

MARK = "<!-- from the code: hyperparameters -->"
TYPES = {"integer": "a whole number", "number": "a number", "string": "text", "array": "a list of texts"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its mark replaced."""
    return markdown.replace(MARK, hyperparameters(Hyperparameters)) if MARK in markdown else markdown


def hyperparameters(model: type[BaseModel]) -> str:
    """Every setting of a model by its group, as Markdown."""
    lines: list[str] = []
    for group in list_setting_groups(model):
        lines += [f"## {group.title or COMMON_TITLE}", "", *_introduction(group)]
        lines += ["| name | takes | default | what |", "|---|---|---|---|", *map(_row, group.fields), ""]
    return "\n".join(lines)


def _introduction(group: SettingGroup) -> list[str]:
    parts = [f"{group.description.rstrip('.')}."] if group.description else []
    methods = " or ".join(f"`{method}`" for method in group.methods)
    parts += [f"Only with the method {methods}."] if methods else []
    return [" ".join(parts), ""] if parts else []


def _row(field: SettingField) -> str:
    option = "--" + "-".join(field.path).replace("_", "-")
    default = "–" if field.default is None or field.default == [] else f"`{_as_json(field.default)}`"
    cells = (f"`{'.'.join(field.path)}`<br>`{option}`", _takes(field), default, field.description)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _takes(field: SettingField) -> str:
    """What the setting may be, in words."""
    values = [f"`{word}`" for word in field.words]
    values += ["`true` or `false`" if kind == "boolean" else TYPES[kind] for kind in field.types]
    return ", ".join(part for part in (" or ".join(values), field.bounds) if part)
