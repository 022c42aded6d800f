"""The command line beside a real service: what the tests of both need."""

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
        """What a command that succeeds shows on stdout."""
        result = self(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """What it shows with --json: one document, and nothing else."""
        return json.loads(self.shown(*arguments, "--json"))

    def refused(self, *arguments: str, code: int) -> str:
        """The one line on stderr of a command that ends with `code`."""
        result = self(*arguments)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert result.stderr.startswith("greentune: ")
        assert result.stderr.count("\n") == 1
        return result.stderr
