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


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("jobs", "--limit", "0"), "--limit: input should be greater than or equal to 1"),
        (("submit", "--scheduler", "cosinus"), "--scheduler: 'cosinus' is not one of 'linear', "),
        (("submit", "--eval-every", "often"), "--eval-every: input should be a valid integer"),
        (("submit", "--epoch", "3"), "No such option: --epoch"),
        (("submit", "--epochs"), "Option '--epochs' requires an argument"),
        (("datasets", "preview"), "Missing argument 'ID': `root datasets preview --help` shows what it takes"),
        (("datasets", "look"), "No such command 'look'"),
    ],
    ids=str,
)
def test_arguments_that_a_command_does_not_take_are_one_line(arguments: tuple[str, ...], line: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith(f"greentune: {line}"), result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_group_without_a_command_shows_its_help() -> None:
    result = CliRunner().invoke(app, ["datasets"])
    assert result.exit_code == ExitCode.USAGE
    assert "preview" in result.output
