"""`greentune watch`: shows a job in the terminal until it is over, with the service's figures."""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import takewhile
from typing import TypeVar

import typer
from rich.console import Console
from rich.live import Live

from cli.errors import CommandError, ExitCode
from cli.remote.figures import format_event
from cli.remote.output import create_console, replace_unprintable, show_json_line
from cli.remote.watch_view import Snapshot, format_progress_line, format_summary, render_snapshot
from greentune.client import Client
from greentune.errors import ServiceError
from greentune.following import is_transient
from greentune.models import Epoch, Event, Intensity, Job

POLL_SECONDS = 2.0
NEWEST_EVENTS = 5
# The grid's intensity changes every few minutes.
INTENSITY_SECONDS = 60.0
# Of a run, where the output is not a terminal: a line for each tenth.
MAX_PROGRESS_LINES = 10

T = TypeVar("T")


def watch(client: Client, job_id: str, *, as_json: bool) -> None:
    """Show the job at each change until it is over.

    Raises `CommandError` where it failed or was cancelled, and at Ctrl-C.
    """
    screen = create_console()
    try:
        if as_json:
            for job in client.changes(job_id, seconds=POLL_SECONDS):  # at least once
                show_json_line(job)
        elif screen.is_terminal:
            job = _live(client, job_id, screen)
        else:
            job = _as_lines(client, job_id)
    except KeyboardInterrupt:
        raise CommandError(
            f"stopped watching; {job_id} continues: `greentune watch {job_id}` shows it again, `greentune cancel "
            f"{job_id}` cancels it",
            ExitCode.INTERRUPTED,
        ) from None
    raise_unless_succeeded(job)


def raise_unless_succeeded(job: Job) -> None:
    """Raise `CommandError` where a job that is over was cancelled or failed."""
    if job.status == "cancelled":
        raise CommandError(f"{job.id} was cancelled{f': {job.reason}' if job.reason else ''}", ExitCode.CANCELLED)
    if job.status != "succeeded":
        detail = (job.error or {}).get("detail") or job.reason or "no reason was given"
        raise CommandError(f"{job.id} has {job.status}: {detail}")


def _as_lines(client: Client, job_id: str) -> Job:
    last_event = 0
    shown: tuple[str, int, int] | None = None
    for snapshot in _snapshots(client, job_id):
        job = snapshot.job
        for event in _ask(partial(_newer_events, client, job_id, last_event), otherwise=list[Event]()):
            typer.echo(format_event(event))
            last_event = event.id
        moved = (job.status, job.progress.epochs_done, int(job.progress.share * MAX_PROGRESS_LINES))
        if moved != shown and not job.is_over:
            typer.echo(replace_unprintable(format_progress_line(snapshot)))
            shown = moved
    for line in format_summary(snapshot):  # the service has answered with the job at least once
        typer.echo(replace_unprintable(line))
    return snapshot.job


def _live(client: Client, job_id: str, screen: Console) -> Job:
    events: list[Event] = []
    with Live(console=screen, refresh_per_second=4) as live:
        for snapshot in _snapshots(client, job_id):
            events = _ask(lambda: list(client.events(job_id, most=NEWEST_EVENTS))[::-1], otherwise=events)
            live.update(render_snapshot(snapshot, events))
    return snapshot.job


def _snapshots(client: Client, job_id: str) -> Iterator[Snapshot]:
    epoch: Epoch | None = None
    intensity: Intensity | None = None
    asked_at = -math.inf
    for job in client.changes(job_id, seconds=POLL_SECONDS):
        epoch = _ask(partial(_newest_epoch, client, job), otherwise=epoch)
        waits = epoch is None and not job.is_over
        if waits and job.zone is not None and time.monotonic() - asked_at >= INTENSITY_SECONDS:
            asked_at = time.monotonic()
            intensity = _ask(partial(client.intensity, job.zone), otherwise=intensity)
        yield Snapshot(job, epoch, intensity if waits else None)


def _newest_epoch(client: Client, job: Job) -> Epoch | None:
    epochs = list(client.epochs(job.id, after=max(0, job.progress.epochs_done - 1)))
    return epochs[-1] if epochs else None


def _newer_events(client: Client, job_id: str, last: int) -> list[Event]:
    """Return the events after the one with the id `last`, the earliest first."""
    return list(takewhile(lambda event: event.id > last, client.events(job_id)))[::-1]


def _ask(request: Callable[[], T], *, otherwise: T) -> T:
    """Return the answer to a request about a job, or `otherwise` at a transient error.

    Those include the 503 of a zone without any intensity.
    """
    try:
        return request()
    except ServiceError as error:
        if not is_transient(error):
            raise
        return otherwise
