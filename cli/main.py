"""The `greentune` command: its parts put together. Each loads what it needs when it runs."""

from typing import Any

import typer
from typer.core import TyperGroup

from cli.commands import datasets, grid, jobs, keys, policies, results, standalone, submission
from cli.errors import EXIT_CODE_DESCRIPTIONS, CommandError
from greentune.errors import ServiceError


class CommandGroup(TyperGroup):
    """Shows an expected error as one message on stderr, and ends with its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CommandError as error:
            raise _print_error(error) from error
        except ServiceError as error:
            from cli.remote.connection import to_command_error

            raise _print_error(to_command_error(error)) from error


def _print_error(error: CommandError) -> typer.Exit:
    typer.echo(f"greentune: {error}", err=True)
    return typer.Exit(error.exit_code)


app = typer.Typer(
    cls=CommandGroup,
    help="Fine-tune language models with adaptive backpropagation, as much and when the grid's carbon allows.",
    epilog="Exit codes: "
    + "; ".join(f"{code.value} {meaning}" for code, meaning in EXIT_CODE_DESCRIPTIONS.items())
    + ".",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# Their commands stand beside each other.
for part in (standalone, submission, jobs, results, grid):
    app.add_typer(part.app)
app.add_typer(policies.app, name="policy")
app.add_typer(datasets.app, name="datasets")
app.add_typer(keys.app, name="keys")

if __name__ == "__main__":
    app()
