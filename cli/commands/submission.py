"""`greentune submit` and `estimate`."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.commands.run_options import with_run_options
from cli.options import AsJson, Key, Url

if TYPE_CHECKING:
    from cli.remote.submission import RunRequest

app = typer.Typer()


@app.command()
@with_run_options
def submit(
    run: "RunRequest",
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end, as `greentune watch`.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Submit a fine-tuning run to the service, and show the job's id; a file of rows is uploaded first."""
    from cli.remote.connection import open_client
    from cli.remote.submission import submit as run_submission
    from cli.remote.watching import POLL_SECONDS
    from cli.remote.watching import watch as run_watch

    with open_client(url, key) as client:
        job = run_submission(client, run, as_json=as_json and not watch)
        if watch:
            run_watch(client, job.id, seconds=POLL_SECONDS, as_json=as_json)


@app.command()
@with_run_options
def estimate(run: "RunRequest", as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Estimate a run's time, energy and emissions, now and in the best window; a file of rows is uploaded for it."""
    from cli.remote.connection import open_client
    from cli.remote.estimate import estimate as run_estimate

    with open_client(url, key) as client:
        run_estimate(client, run, as_json=as_json)
