"""`greentune jobs`, `cancel`, `pause`, `resume` and `retry`."""

from collections.abc import Sequence
from typing import get_args

import typer

from api.figures import UNKNOWN, format_number, format_percent
from cli.errors import CommandError, SettingError
from cli.remote.connection import to_command_error
from cli.remote.figures import format_emissions, format_savings
from cli.remote.output import format_short_time, show_json, show_list
from cli.remote.submission import parse_metadata
from greentune.client import Client
from greentune.errors import ServiceError, Unreachable
from greentune.models import Action, Job, JobStatus

HEADERS = ("job", "status", "done", "ETA (UTC)", "ρ", "loss", "gCO2e", "saved")


def show_jobs(
    client: Client, *, status: str | None, zone: str | None, metadata: Sequence[str], limit: int, as_json: bool
) -> None:
    """List the newest jobs that match all filters."""
    jobs = list(client.jobs(status=_parse_status(status), zone=zone, metadata=parse_metadata(metadata), most=limit))
    show_list(jobs, HEADERS, _row, empty="no jobs", as_json=as_json)


def apply_action(client: Client, action: Action, job_ids: Sequence[str], *, as_json: bool) -> None:
    """Request an action on each job; prints every refusal, and raises one with the exit code of the first."""
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


def _parse_status(name: str | None) -> JobStatus | None:
    for status in get_args(JobStatus):
        if status == name:
            found: JobStatus = status
            return found
    if name is None:
        return None
    raise SettingError(f"--status: {name!r} is not one of {', '.join(get_args(JobStatus))}")
