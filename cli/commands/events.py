"""`greentune events`: a job's events, stored and as they come."""

from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.figures import format_value
from cli.errors import CommandError, ExitCode
from cli.options import AsJson, JobArgument, with_client
from cli.remote.output import replace_unprintable, show_json, show_json_line

if TYPE_CHECKING:
    from greentune.client import Client
    from greentune.models import Event

app = typer.Typer()


@app.command()
@with_client
def events(
    client: "Client",
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="All of them, and new ones as they come.")] = False,
    limit: Annotated[int, typer.Option(help="Largest number shown without --follow.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """Show a job's newest events, the earliest first; with --follow and --json a line of JSON for each."""
    if not follow:
        newest = list(client.events(job, most=limit))[::-1]
        if as_json:
            show_json(newest)
        else:
            typer.echo("\n".join(map(format_event, newest)))
        return
    try:
        for event in client.events(job, follow=True):
            if as_json:
                show_json_line(event)
            else:
                typer.echo(format_event(event))
    except KeyboardInterrupt:
        raise CommandError(f"stopped following; {job} continues", ExitCode.INTERRUPTED) from None


def format_event(event: "Event") -> str:
    """Format an event on one line."""
    return replace_unprintable(
        f"{event.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}  {event.type}  {_format_event_data(event.data)}".rstrip()
    )


def _format_event_data(data: Mapping[str, Any]) -> str:
    """Format the data, reason first; without `from` and `to`, which the event types show."""
    rest = {name: each for name, each in data.items() if each is not None and name not in ("reason", "from", "to")}
    parts = [str(data["reason"])] if data.get("reason") else []
    return "  ".join([*parts, *(f"{name}={format_value(each)}" for name, each in rest.items())])
