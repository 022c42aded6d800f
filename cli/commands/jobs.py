"""`greentune jobs`, `watch` and the actions on jobs."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import AsJson, JobArgument, JobArguments, JsonLines, Key, Metadata, Url

if TYPE_CHECKING:
    from greentune.models import Action

app = typer.Typer()


@app.command("jobs")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="Only jobs of this status, such as running.")] = None,
    zone: Annotated[str | None, typer.Option(help="Only jobs of this zone.")] = None,
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option(help="Largest number shown.", min=1)] = 20,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List jobs, the newest first: progress, emissions and savings."""
    from cli.remote.connection import open_client
    from cli.remote.jobs import show_jobs

    with open_client(url, key) as client:
        show_jobs(client, status=status, zone=zone, metadata=metadata or (), limit=limit, as_json=as_json)


@app.command()
def watch(job: JobArgument, as_json: JsonLines = False, url: Url = None, key: Key = None) -> None:
    """Follow a job to its end. Ctrl-C leaves it running.

    Exits with 0 where the job succeeded, 1 where it failed, and 3 where it was cancelled.
    """
    from cli.remote.connection import open_client
    from cli.remote.watching import POLL_SECONDS
    from cli.remote.watching import watch as run

    with open_client(url, key) as client:
        run(client, job, seconds=POLL_SECONDS, as_json=as_json)


@app.command()
def cancel(jobs: JobArguments, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Cancel jobs; running ones stop at their next optimiser step."""
    _apply_action("cancel", jobs, as_json, url, key)


@app.command()
def pause(jobs: JobArguments, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Pause jobs; running ones stop at their next optimiser step, and keep their progress."""
    _apply_action("pause", jobs, as_json, url, key)


@app.command()
def resume(jobs: JobArguments, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Resume paused jobs."""
    _apply_action("resume", jobs, as_json, url, key)


@app.command()
def retry(jobs: JobArguments, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Retry jobs that failed or were cancelled."""
    _apply_action("retry", jobs, as_json, url, key)


def _apply_action(action: "Action", jobs: list[str], as_json: bool, url: str | None, key: str | None) -> None:
    from cli.remote.connection import open_client
    from cli.remote.jobs import apply_action

    with open_client(url, key) as client:
        apply_action(client, action, jobs, as_json=as_json)
