"""Runs commands against a service; shared by the tests of remote commands and of watch."""

import json
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner, Result

from cli.main import app


@dataclass(frozen=True)
class CommandRunner:
    """Runs `greentune` with a service and a key in its environment."""

    url: str
    key: str | None

    def __call__(self, *arguments: str) -> Result:
        environment = {"GREENTUNE_URL": self.url, "GREENTUNE_KEY": self.key, "COLUMNS": "240"}
        return CliRunner().invoke(app, list(arguments), env=environment)

    def shown(self, *arguments: str) -> str:
        """Return the stdout of a command that succeeds."""
        result = self(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """Return the JSON document on stdout of a command with --json."""
        return json.loads(self.shown(*arguments, "--json"))

    def refused(self, *arguments: str, code: int) -> str:
        """Return the only line on stderr of a command that exits with `code`."""
        result = self(*arguments)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert result.stderr.startswith("greentune: ")
        assert result.stderr.count("\n") == 1
        return result.stderr
