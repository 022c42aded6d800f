"""Every `greentune` command in a document is one that there is, with options that it has."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# At the start of a line, in `$(…)`, and in a container.
COMMAND = re.compile(r"(?:^|\$\(|\bapi )greentune ((?:[^\n\\`)|>;#]|\\\n)+)", re.MULTILINE)


def shown() -> list[tuple[str, str]]:
    """Each command in a block of commands, and in backticks, with its page."""
    found = []
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        spans = re.findall(r"`(greentune [^`]+)`", text)
        name = str(page.relative_to(ROOT))
        found += [
            (name, command.replace("\\\n", " ")) for code in (*blocks, *spans) for command in COMMAND.findall(code)
        ]
    return found


@pytest.mark.parametrize(("page", "command"), shown())
def test_a_command_that_is_shown_is_one(page: str, command: str) -> None:
    words = command.split() if command.count("'") % 2 or command.count('"') % 2 else shlex.split(command)
    found: Any = typer.main.get_command(app)
    while hasattr(found, "commands") and words and not words[0].startswith("-") and words[0] != "COMMAND":
        word = words.pop(0)
        assert word in found.commands, f"{page}: there is no `greentune {command}`"
        found = found.commands[word]
    options = {option for parameter in found.params for option in parameter.opts} | {"--help"}
    named = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert named <= options, f"{page}: `greentune {command}`"


def test_commands_are_found() -> None:
    assert len({command for _, command in shown()}) > 20
