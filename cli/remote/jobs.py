"""`greentune jobs` and the actions on jobs."""

from collections.abc import Sequence
from typing import get_args

import typer

from api.figures import UNKNOWN, format_number, format_percent
from cli.errors import CommandError, SettingError
from cli.remote.connection import to_command_error
from cli.remote.figures import format_emissions, format_savings
from cli.remote.output import format_short_time, show_json, show_table
from cli.remote.submission import parse_metadata
from greentune.client import Client
from greentune.errors import ServiceError, Unreachable
from greentune.models import Action, Job, JobStatus

HEADERS = ("job", "status", "done", "ETA (UTC)", "ρ", "loss", "gCO2e", "saved")


def show_jobs(
    client: Client, *, status: str | None, zone: str | None, metadata: Sequence[str], limit: int, as_json: bool
) -> None:
    """List the newest jobs that all filters hold of."""
    jobs = list(client.jobs(status=_status(status), zone=zone, metadata=parse_metadata(metadata), most=limit))
    if as_json:
        show_json(jobs)
    else:
        show_table(HEADERS, map(_row, jobs), empty="no jobs")


def apply_action(client: Client, action: Action, job_ids: Sequence[str], *, as_json: bool) -> None:
    """Ask for an action of each job; those that refuse are named, and the command ends as the first of them does."""
    call = {"cancel": client.cancel, "pause": client.pause, "resume": client.resume, "retry": client.retry}[action]
    done: list[Job] = []
    refused: list[CommandError] = []
    for job_id in job_ids:
        try:
            done.append(call(job_id))
        except ServiceError as error:
            refused.append(to_command_error(error))
            if isinstance(error, Unreachable):
                break
    if as_json:
        show_json(done)
    else:
        for job in done:
            typer.echo(f"{job.id}: {job.status}")
    if refused:
        *others, last = refused
        for each in others:
            typer.echo(f"greentune: {each}", err=True)
        last.exit_code = refused[0].exit_code
        raise last


def _row(job: Job) -> tuple[str, ...]:
    return (
        job.id,
        job.status,
        format_percent(job.progress.share),
        UNKNOWN if job.eta is None else format_short_time(job.eta.finishes_at),
        format_number(job.rho),
        format_number(job.loss),
        format_emissions(job),
        format_savings(job),
    )


def _status(name: str | None) -> JobStatus | None:
    for status in get_args(JobStatus):
        if status == name:
            found: JobStatus = status
            return found
    if name is None:
        return None
    raise SettingError(f"--status: {name!r} is not one of {', '.join(get_args(JobStatus))}")
