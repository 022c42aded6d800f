"""mkdocs hook: writes the calls of the REST interface, from its own description, where a page asks for them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from api.reference.operations import (
    Field,
    Operation,
    ResponseDoc,
    common_responses,
    list_operations,
    list_schemas,
    security_schemes,
)

MARK = "<!-- from the code: rest -->"
DESCRIPTION = Path(__file__).parents[2] / "api" / "openapi.json"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its mark replaced."""
    return markdown.replace(MARK, rest()) if MARK in markdown else markdown


def rest() -> str:
    """Every call by its group, and the objects that go in and come out, as Markdown."""
    openapi = json.loads(DESCRIPTION.read_text())
    groups = {tag["name"]: tag["description"] for tag in openapi["tags"]}
    lines = ["## Authentication", "", *_table(("scheme", "what to send"), security_schemes(openapi))]
    lines += ["## Common responses", "", *_responses(common_responses(openapi))]
    for group, calls in list_operations(openapi):
        lines += [f"## {group.capitalize()}", "", f"{groups[group]}.", ""]
        for call in calls:
            lines += _call(call)
    lines += ["## Schemas", "", "Request and response bodies, by name.", ""]
    for schema in list_schemas(openapi):
        lines += [f"### {schema.name}", ""]
        lines += [_text(schema.description), ""] if schema.description else []
        lines += _fields(schema.fields)
    return "\n".join(lines)


def _call(call: Operation) -> list[str]:
    lines = [f"### `{call.method} {call.path}`", "", f"**{_text(call.summary)}.**", ""]
    lines += [_text(call.description), ""] if call.description else []
    lines += ["Needs no key.", ""] if call.open else []
    for label, fields in (("Parameters", call.parameters), ("Body", call.body)):
        lines += [f"{label}:", "", *_fields(fields)] if fields else []
    return [*lines, "Responses:", "", *_responses(call.responses)]


def _fields(fields: Sequence[Field]) -> list[str]:
    rows = (
        (f"`{field.name}`{' (required)' if field.required else ''}", _text(field.type), field.description)
        for field in fields
    )
    return _table(("name", "type", "what"), rows) if fields else []


def _responses(responses: Sequence[ResponseDoc]) -> list[str]:
    rows = (
        (f"`{response.status}`", response.description, _text(response.type), response.headers) for response in responses
    )
    return _table(("status", "what", "body", "headers"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows),
        "",
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _text(text: str) -> str:
    """Text whose asterisks and angle brackets stand for themselves."""
    return text.replace("*", "\\*").replace("<", "&lt;")
