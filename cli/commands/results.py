"""`greentune epochs`, `events`, `artifacts` and `download`: what a job did, and what it made."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson, JobArgument, Key, Url

app = typer.Typer()


@app.command()
def epochs(job: JobArgument, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Show each epoch of a job: its ρ and why, what was trained, and what it cost."""
    from cli.remote.connection import open_client
    from cli.remote.results import show_epochs

    with open_client(url, key) as client:
        show_epochs(client, job, as_json=as_json)


@app.command()
def events(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="All of them, and those that come.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many, the newest; without --follow.", min=1)] = 50,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show what happened to a job, the earliest first; with --follow and --json a line of JSON an event."""
    from cli.remote.connection import open_client
    from cli.remote.events import follow_events, show_events

    with open_client(url, key) as client:
        if follow:
            follow_events(client, job, as_json=as_json)
        else:
            show_events(client, job, limit=limit, as_json=as_json)


@app.command()
def artifacts(job: JobArgument, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List the files of a finished job's result."""
    from cli.remote.connection import open_client
    from cli.remote.results import show_artifacts

    with open_client(url, key) as client:
        show_artifacts(client, job, as_json=as_json)


@app.command()
def download(
    job: JobArgument,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One file; else all.", show_default=False)] = None,
    output: Annotated[Path, typer.Option(help="Folder to write to; it is made where there is none.")] = Path(),
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Download a finished job's result; each file is checked against its SHA-256."""
    from cli.remote.connection import open_client
    from cli.remote.results import download as run

    with open_client(url, key) as client:
        run(client, job, name, output, as_json=as_json)
