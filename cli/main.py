"""The `greentune` command, composed of its parts; each loads what it needs when it runs."""

from typing import Any

import typer
from typer.core import TyperGroup

from cli.commands import datasets, inventory, jobs, keys, policies, results, standalone, submission, zones
from cli.errors import EXIT_CODE_DESCRIPTIONS, CommandError
from cli.remote.connection import to_command_error
from greentune.errors import ServiceError


class CommandGroup(TyperGroup):
    """Shows an expected error as one message on stderr, and exits with its code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (CommandError, ServiceError) as error:
            shown = to_command_error(error) if isinstance(error, ServiceError) else error
            typer.echo(f"greentune: {shown}", err=True)
            raise typer.Exit(shown.exit_code) from error


app = typer.Typer(
    cls=CommandGroup,
    help="Fine-tune language models with adaptive backpropagation, as much and when the grid's carbon allows.",
    epilog="Exit codes: "
    + "; ".join(f"{code.value} {meaning}" for code, meaning in EXIT_CODE_DESCRIPTIONS.items())
    + ".",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# Commands of the top level.
for part in (standalone, submission, jobs, results, zones, inventory):
    app.add_typer(part.app)
app.add_typer(jobs.list_app, name="jobs")
app.add_typer(policies.app, name="policy")
app.add_typer(datasets.app, name="datasets")
app.add_typer(keys.app, name="keys")

if __name__ == "__main__":
    app()
