"""`greentune jobs`, `watch` and the actions on jobs."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from api.figures import UNKNOWN, format_number, format_percent
from cli.commands.submission import parse_metadata
from cli.errors import CommandError, SettingError
from cli.job_file import to_job_body
from cli.options import AsJson, JobArgument, JobArguments, Metadata, check_choice, with_client
from cli.remote.connection import to_command_error
from cli.remote.figures import format_emissions, format_savings
from cli.remote.output import Columns, format_short_time, show_json, show_list, show_table
from greentune.errors import Problem, ServiceError, Unreachable

if TYPE_CHECKING:
    from greentune.client import Client
    from greentune.models import Job, JobStatus

app = typer.Typer()
list_app = typer.Typer()

COLUMNS: "Columns[Job]" = {
    "job": lambda job: job.id,
    "name": lambda job: job.name or "",
    "status": lambda job: job.status,
    "done": lambda job: format_percent(job.progress.share),
    "ETA (UTC)": lambda job: UNKNOWN if job.eta is None else format_short_time(job.eta.finishes_at),
    "ρ": lambda job: format_number(job.rho),
    "loss": lambda job: format_number(job.loss),
    "gCO2e": lambda job: format_emissions(job),
    "saved": lambda job: format_savings(job),
}


@list_app.callback(invoke_without_command=True)
@with_client
def list_jobs(
    client: "Client",
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only jobs of this status, such as running.")] = None,
    zone: Annotated[str | None, typer.Option(help="Only jobs of this zone.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only jobs of this owner, for operators.")] = None,
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option(help="Largest number shown.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first: progress, emissions and savings."""
    from greentune.models import JobStatus

    if context.invoked_subcommand is not None:
        if misplaced := [option for option in context.command.params if _was_given(context, option.name)]:
            raise SettingError(f"{misplaced[0].opts[0]}: belongs after {context.invoked_subcommand}")
        return
    if status is not None:
        check_choice("--status", status, get_args(JobStatus))
    found = client.jobs(
        status=cast("JobStatus | None", status),
        zone=zone,
        name=name,
        model=model,
        owner=owner,
        metadata=parse_metadata(metadata or ()),
        most=limit,
    )
    show_list(found, COLUMNS, empty="no jobs", as_json=as_json)


@list_app.command()
@with_client
def show(
    client: "Client",
    job: JobArgument,
    as_config: Annotated[
        bool, typer.Option("--as-config", help="Show YAML that `greentune submit --config` takes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a job's request and state; with --as-config what submits it again, with --json too as that body."""
    found = client.job(job)
    if not as_config:
        if as_json:
            show_json(found)
        else:
            from cli.remote.watch_view import Snapshot, list_figures

            figures = [*_list_request(found), *list_figures(Snapshot(found, epoch=None, intensity=None))]
            show_table(("", found.id), [(name, text) for name, text in figures if text != UNKNOWN])
        return
    body = to_job_body(found, stored_policy=_stored_policy(client, found))
    passed = found.deadline is not None and found.deadline <= datetime.now(UTC)
    if passed:
        typer.echo(f"--deadline: left out, as {body.pop('deadline')} has passed", err=True)
    if as_json:
        show_json(body)
    else:
        from cli.yaml_text import format_yaml

        typer.echo(format_yaml(body), nl=False)


@app.command()
@with_client
def watch(
    client: "Client",
    job: JobArgument,
    as_json: Annotated[
        bool, typer.Option("--json", help="Show a line of JSON for each change, and nothing else.")
    ] = False,
) -> None:
    """Follow a job to its end. Ctrl-C leaves it running.

    Exits with 0 where the job succeeded, 1 where it failed, and 3 where it was cancelled.
    """
    from cli.remote.watching import watch as run

    run(client, job, as_json=as_json)


@app.command()
@with_client
def cancel(client: "Client", jobs: JobArguments, as_json: AsJson = False) -> None:
    """Cancel jobs; running ones stop at their next optimiser step."""
    _apply_to_each(client.cancel, jobs, as_json=as_json)


@app.command()
@with_client
def pause(client: "Client", jobs: JobArguments, as_json: AsJson = False) -> None:
    """Pause jobs; running ones stop at their next optimiser step, and keep their progress."""
    _apply_to_each(client.pause, jobs, as_json=as_json)


@app.command()
@with_client
def resume(client: "Client", jobs: JobArguments, as_json: AsJson = False) -> None:
    """Resume paused jobs."""
    _apply_to_each(client.resume, jobs, as_json=as_json)


@app.command()
@with_client
def retry(client: "Client", jobs: JobArguments, as_json: AsJson = False) -> None:
    """Retry jobs that failed or were cancelled."""
    _apply_to_each(client.retry, jobs, as_json=as_json)


def _list_request(job: "Job") -> list[tuple[str, str]]:
    """Return what was submitted, as (name, text); hyperparameters and metadata are in the file of settings."""
    deadline = None if job.deadline is None else f"{format_short_time(job.deadline)} UTC"
    texts = {
        "name": job.name,
        "owner": job.owner,
        "model": f"{job.model}, as {job.base_job} left it" if job.base_job else job.model,
        "method": job.method if job.method_requested == job.method else f"{job.method}, for {job.method_requested}",
        "reason of the method": job.method_reason,
        "dataset": job.dataset,
        "validation dataset": job.validation_dataset,
        "policy": job.policy_name or job.policy["kind"],
        "zone": job.zone,
        "GPUs": str(job.resources.gpus if job.gpus is None else job.gpus),
        "deadline": deadline,
    }
    return [(name, text or UNKNOWN) for name, text in texts.items()]


def _was_given(context: typer.Context, name: str | None) -> bool:
    source = None if name is None else context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _stored_policy(client: "Client", job: "Job") -> Mapping[str, Any] | None:
    """Return the newest version of the policy that a job names, None where there is none."""
    if job.policy_name is None:
        return None
    try:
        return client.policy(job.policy_name).policy
    except Problem as problem:
        if problem.status != HTTPStatus.NOT_FOUND:
            raise
        return None


def _apply_to_each(action: "Callable[[str], Job]", job_ids: Sequence[str], *, as_json: bool) -> None:
    """Request an action on each job; prints every refusal, and raises the last with the exit code of the first."""
    done: list[Job] = []
    refused: list[CommandError] = []
    for job_id in job_ids:
        try:
            done.append(action(job_id))
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
