"""`greentune epochs`, `events`, `artifacts` and `download`: a job's history and result."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson, JobArgument, Key, Url

app = typer.Typer()


@app.command()
def epochs(job: JobArgument, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Show each epoch of a job: its ρ with the reason, tensors trained, loss, energy and emissions."""
    from cli.remote.connection import open_client
    from cli.remote.results import show_epochs

    with open_client(url, key) as client:
        show_epochs(client, job, as_json=as_json)


@app.command()
def events(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="All of them, and new ones as they come.")] = False,
    limit: Annotated[int, typer.Option(help="Largest number shown without --follow.", min=1)] = 50,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show a job's newest events, the earliest first; with --follow and --json a line of JSON for each."""
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
    output: Annotated[Path, typer.Option(help="Folder to write to; created if missing.")] = Path(),
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Download a finished job's result; each file is verified by its SHA-256."""
    from cli.remote.connection import open_client
    from cli.remote.results import download as run

    with open_client(url, key) as client:
        run(client, job, name, output, as_json=as_json)
