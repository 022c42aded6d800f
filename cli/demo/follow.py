"""Follows a job to its end: a live line on a terminal, else a line for each change."""

import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from api.figures import UNKNOWN
from cli.errors import CommandError
from cli.remote.watching import raise_unless_succeeded
from greentune.client import Client
from greentune.models import Job, JobStatus

# Above the time of loading a model for the first time, during which a job shows no change.
STALL_TIMEOUT_SECONDS = 600.0
STATUS_DESCRIPTIONS: Mapping[JobStatus, str] = {
    "validating": "preparing the model and the rows",
    "queued": "waiting for the worker",
    "running": "training",
}


def follow(console: Console, client: Client, job_id: str, *, pause: Callable[[], None]) -> Job:
    """Return the job after its success. Raises `CommandError` where it does not succeed, or stalls.

    `pause` waits between two polls, and raises to end the following.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
    )
    last_epoch, shown, changed_at = 0, ("", 0, 0), time.monotonic()
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True, refresh_per_second=4
    ) as live:
        line = live.add_task("submitted", total=1.0, figures="")
        while True:
            job = client.job(job_id)
            progress = job.progress
            for epoch in client.epochs(job_id, after=last_epoch):
                last_epoch = epoch.number
                console.print(f"  epoch {epoch.number}/{progress.epochs}: ρ = {epoch.rho_asked:.2f}, {epoch.reason}")
            state = (job.status, progress.epochs_done, progress.steps_done)
            if job.status != shown[0]:
                console.print(f"  {job.status}{_why(job)}")
            if state != shown:
                shown, changed_at = state, time.monotonic()
            live.update(line, description=_description(job), completed=progress.share, figures=_figures(job))
            if job.is_over:
                break
            if time.monotonic() - changed_at > STALL_TIMEOUT_SECONDS:
                raise CommandError(
                    f"{job_id} is {job.status}, and nothing has happened for {STALL_TIMEOUT_SECONDS:g} s"
                )
            pause()
    raise_unless_succeeded(job)
    return job


def _why(job: Job) -> str:
    if job.status == "failed":
        return ""  # the error is shown at the end
    what = job.reason or STATUS_DESCRIPTIONS.get(job.status)
    return f": {what}" if what else ""


def _description(job: Job) -> str:
    if job.status != "running":
        return job.status
    if job.rho is None:
        return "evaluating the untrained model"
    if job.progress.epochs_done == job.progress.epochs:
        return "evaluating the trained model"
    return f"epoch {job.progress.epochs_done + 1}/{job.progress.epochs}"


def _figures(job: Job) -> str:
    figures = []
    if job.rho is not None:
        figures.append(f"ρ {job.rho:.2f}")
    if job.loss is not None:
        figures.append(f"loss {job.loss:.3f}")
    if job.energy_kwh:
        emitted = UNKNOWN if job.known_gco2e is None else f"{job.known_gco2e:.3f}"
        figures.append(f"{job.energy_kwh * 1000:.2f} Wh  {emitted} gCO2e")
    return "  ".join(figures)
