"""mkdocs hook: writes the table of every setting, where a page asks for it.

What each means comes from .env.example, which operators read, too; its default and what it takes from `Settings`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from runtime.settings import Settings

MARK = "<!-- from the code: settings -->"
EXPLANATIONS = Path(__file__).parents[2] / ".env.example"
GROUP = re.compile(r"# -+ (?P<title>.+?) -*")
VARIABLE = re.compile(r"#?(?P<name>[A-Z][A-Z0-9_]+)=(?P<value>.*)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its mark replaced."""
    return markdown.replace(MARK, settings()) if MARK in markdown else markdown


def settings() -> str:
    """Every variable in the groups of .env.example, as Markdown."""
    fields = {_variable(name): field for name, field in Settings.model_fields.items()}
    lines: list[str] = []
    shown = ""
    for group, variables, meaning in _explanations(EXPLANATIONS.read_text()):
        if group != shown:
            shown = group
            lines += ["", f"## {group}", "", "| variable | default | what |", "|---|---|---|"]
        names = "<br>".join(f"`{name}`" for name in variables)
        defaults = "<br>".join(f"`{value}`" if value else "–" for value in variables.values())
        bounds = {_bounds(fields[name]) for name in variables if name in fields} - {""}
        limits = f" ({', '.join(sorted(bounds))})" if bounds else ""
        lines.append(f"| {names} | {defaults} | {meaning.replace('|', chr(92) + '|')}{limits} |")
    return "\n".join(lines)


def _explanations(text: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """Yield each group's title, the variables that are explained together with their defaults, and what they mean."""
    group, meaning, variables = "", list[str](), dict[str, str]()
    for line in [*text.splitlines(), ""]:
        if title := GROUP.fullmatch(line):
            group = title["title"]
        elif variable := VARIABLE.fullmatch(line):
            variables[variable["name"]] = variable["value"]
        elif line.startswith("# "):
            meaning.append(line[2:])
        elif variables or not group:
            if variables:
                yield group, variables, " ".join(meaning)
            meaning, variables = [], {}
        # Else a paragraph without variables of its own, which introduces the next.


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
