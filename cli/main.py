"""The `greentune` command, composed of its parts; each loads what it needs when it runs."""

from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from cli.commands import datasets, inventory, jobs, keys, policies, results, standalone, submission, zones
from cli.errors import EXIT_CODE_DESCRIPTIONS, CommandError, ExitCode
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
        except TyperException as error:
            line = _format_usage_error(error)
            if line is None:
                raise
            typer.echo(f"greentune: {line}", err=True)
            raise typer.Exit(ExitCode.USAGE) from error


def _format_usage_error(error: Any) -> str | None:
    """Return one line about arguments that a command does not take; None for an error that shows its help."""
    if not hasattr(error, "ctx") or type(error).__name__ == "NoArgsIsHelpError":  # which Typer does not export
        return None
    parameter, message = getattr(error, "param", None), str(error.message).removeprefix("Value error, ")
    if parameter is not None and message:
        name = parameter.opts[-1] if parameter.param_type_name == "option" else parameter.make_metavar(error.ctx)
        return f"{name.strip('{}')}: {message[:1].lower()}{message[1:].rstrip('.')}"
    help_command = f": `{error.ctx.command_path} --help` shows what it takes" if error.ctx else ""
    return f"{error.format_message().rstrip('.')}{help_command}"


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
