"""`greentune watch`: shows a job in the terminal until it is over, with the service's figures."""

import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import typer
from rich.console import Console
from rich.live import Live

from cli.commands.events import format_event
from cli.errors import CommandError, ExitCode
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
            job = _as_json(client, job_id)
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


def _as_json(client: Client, job_id: str) -> Job:
    job: Job | None = None
    for job in client.changes(job_id, seconds=POLL_SECONDS):
        show_json_line(job)
    assert job is not None, "an existing job is shown at least once"
    return job


def _as_lines(client: Client, job_id: str) -> Job:
    events = _EventPoller(client, job_id)
    shown: tuple[str, int, int] | None = None
    snapshot: Snapshot | None = None
    for snapshot in _snapshots(client, job_id):
        job = snapshot.job
        for event in events.fetch_new():
            typer.echo(format_event(event))
        moved = (job.status, job.progress.epochs_done, int(job.progress.share * MAX_PROGRESS_LINES))
        if moved != shown and not job.is_over:
            typer.echo(replace_unprintable(format_progress_line(snapshot)))
            shown = moved
    assert snapshot is not None, "an existing job is shown at least once"
    for line in format_summary(snapshot):
        typer.echo(replace_unprintable(line))
    return snapshot.job


def _live(client: Client, job_id: str, screen: Console) -> Job:
    snapshot: Snapshot | None = None
    events = _CachedPoll(list[Event](), lambda: list(client.events(job_id, most=NEWEST_EVENTS))[::-1])
    with Live(console=screen, refresh_per_second=4) as live:
        for snapshot in _snapshots(client, job_id):
            live.update(render_snapshot(snapshot, events.get()))
    assert snapshot is not None, "an existing job is shown at least once"
    return snapshot.job


def _snapshots(client: Client, job_id: str) -> Iterator[Snapshot]:
    epoch: _CachedPoll[Epoch | None] = _CachedPoll(None, lambda: _newest_epoch(client, job))
    intensity: _CachedPoll[Intensity | None] = _CachedPoll(
        None, lambda: None if job.zone is None else client.intensity(job.zone), every_seconds=INTENSITY_SECONDS
    )
    for job in client.changes(job_id, seconds=POLL_SECONDS):
        newest = epoch.get()
        waits = newest is None and not job.is_over
        yield Snapshot(job, newest, intensity.get() if waits else None)


def _newest_epoch(client: Client, job: Job) -> Epoch | None:
    epochs = list(client.epochs(job.id, after=max(0, job.progress.epochs_done - 1)))
    return epochs[-1] if epochs else None


class _CachedPoll(Generic[T]):
    """A value shown beside the job: requested at most every `every_seconds`, and kept over transient errors.

    Those include the 503 of a zone without any intensity.
    """

    def __init__(self, initial: T, ask: Callable[[], T], *, every_seconds: float = 0.0) -> None:
        self._last, self._ask, self._every_seconds = initial, ask, every_seconds
        self._asked_at: float | None = None

    def get(self) -> T:
        """Return the value, requested again where it is due."""
        now = time.monotonic()
        if self._asked_at is None or now - self._asked_at >= self._every_seconds:
            self._asked_at = now
            try:
                self._last = self._ask()
            except ServiceError as error:
                if not is_transient(error):
                    raise
        return self._last


class _EventPoller:
    """Returns each event once, the earliest first."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client, self._job_id, self._last = client, job_id, 0

    def fetch_new(self) -> list[Event]:
        """Return the events since the last call; none during a transient error, after which the next call has them."""
        found = []
        try:
            for event in self._client.events(self._job_id):
                if event.id <= self._last:
                    break
                found.append(event)
        except ServiceError as error:
            if not is_transient(error):
                raise
            return []
        if found:
            self._last = found[0].id
        return found[::-1]
