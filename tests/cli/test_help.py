"""`--help` of every command, without heavy imports."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.errors import EXIT_CODE_DESCRIPTIONS, ExitCode
from cli.main import app


def paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from paths(below, (*path, name))


@pytest.mark.parametrize("path", list(paths(typer.main.get_command(app))), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0, result.output
    assert f"Usage: greentune {' '.join(path)}".rstrip() in " ".join(result.stdout.split()).replace("root", "greentune")


def test_every_exit_code_is_explained_in_the_help() -> None:
    shown = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    assert set(EXIT_CODE_DESCRIPTIONS) == set(ExitCode)
    for code, meaning in EXIT_CODE_DESCRIPTIONS.items():
        assert f"{code.value} {meaning}" in shown


def test_the_help_imports_no_heavy_module() -> None:
    program = (
        "import sys, cli.main; heavy = {'torch', 'sqlalchemy', 'pydantic', 'httpx', 'numpy', 'fastapi', 'rich.table'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
