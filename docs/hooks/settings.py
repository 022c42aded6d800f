"""mkdocs hook: writes the table of every setting, where a page asks for it.

What each means comes from .env.example, which operators read, too; its default and what it takes from `Settings`.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from runtime.settings import Settings

MARK = "<!-- from the code: settings -->"
EXPLANATIONS = Path(__file__).parents[2] / ".env.example"
GROUP = re.compile(r"# -+ (?P<title>.+?) -*")
VARIABLE = re.compile(r"#?(?P<name>[A-Z][A-Z0-9_]+)=(?P<value>.*)")


@dataclass(frozen=True)
class Entry:
    """Variables that are explained together."""

    group: str
    variables: dict[str, str]
    meaning: str


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its mark replaced."""
    return markdown.replace(MARK, settings()) if MARK in markdown else markdown


def settings() -> str:
    """Every variable in the groups of .env.example, as Markdown."""
    fields = {_variable(name): field for name, field in Settings.model_fields.items()}
    lines: list[str] = []
    group = ""
    for entry in entries(EXPLANATIONS.read_text()):
        if entry.group != group:
            group = entry.group
            lines += ["", f"## {group}", "", "| variable | default | what |", "|---|---|---|"]
        names = "<br>".join(f"`{name}`" for name in entry.variables)
        defaults = "<br>".join(f"`{value}`" if value else "–" for value in entry.variables.values())
        bounds = {_bounds(fields[name]) for name in entry.variables if name in fields} - {""}
        limits = f" ({', '.join(sorted(bounds))})" if bounds else ""
        lines.append(f"| {names} | {defaults} | {_cell(entry.meaning)}{limits} |")
    return "\n".join(lines)


def entries(text: str) -> list[Entry]:
    """What .env.example says, in its order: each block of comments with the variables that follow it."""
    found: list[Entry] = []
    group, meaning, variables = "", [""], dict[str, str]()
    for line in [*text.splitlines(), ""]:
        if title := GROUP.fullmatch(line):
            group = title["title"]
        elif variable := VARIABLE.fullmatch(line):
            variables[variable["name"]] = variable["value"]
        elif line.startswith("# "):
            meaning.append(line[2:])
        else:
            if variables:
                found.append(Entry(group, variables, " ".join(meaning).strip()))
                meaning, variables = [""], {}
            elif not group:
                meaning = [""]
            # A paragraph without variables of its own introduces the next.
    return found


def _variable(name: str) -> str:
    return name.upper() if name in ("database_url", "redis_url") else f"GREENTUNE_{name}".upper()


def _bounds(field: FieldInfo) -> str:
    """The bounds of a number, in words."""
    words = {"ge": "at least", "gt": "above", "le": "at most"}
    return ", ".join(
        f"{words[name]} {getattr(bound, name):g}"
        for bound in field.metadata
        for name in words
        if getattr(bound, name, None) is not None
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
