"""`greentune events`: a job's events, stored and as they come."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any

import typer

from api.figures import format_value
from cli.errors import WatchInterrupted
from cli.remote.output import replace_unprintable, show_json, show_json_line
from greentune.client import Client
from greentune.models import Event


def show_events(client: Client, job_id: str, *, limit: int, as_json: bool) -> None:
    """Show the newest events, the earliest of them first."""
    events = list(client.events(job_id, most=limit))[::-1]
    if as_json:
        show_json(events)
        return
    for event in events:
        typer.echo(format_event(event))


def follow_events(client: Client, job_id: str, *, as_json: bool) -> None:
    """Show all events, and new ones until the job is over. Raises `WatchInterrupted` at Ctrl-C."""
    try:
        for event in client.events(job_id, follow=True):
            if as_json:
                show_json_line(event)
            else:
                typer.echo(format_event(event))
    except KeyboardInterrupt:
        raise WatchInterrupted(f"stopped following; {job_id} continues") from None


def format_event(event: Event) -> str:
    """Format an event on one line."""
    return replace_unprintable(
        f"{event.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}  {event.type}  {_format_event_data(event.data)}".rstrip()
    )


def _format_event_data(data: Mapping[str, Any]) -> str:
    """Format the data, reason first; without `from` and `to`, which the event types show."""
    rest = {name: each for name, each in data.items() if each is not None and name not in ("reason", "from", "to")}
    parts = [str(data["reason"])] if data.get("reason") else []
    return "  ".join([*parts, *(f"{name}={format_value(each)}" for name, each in rest.items())])
