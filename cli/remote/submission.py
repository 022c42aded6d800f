"""`greentune submit`, and the parsing of a run's options."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import typer

from cli.errors import SettingError
from cli.local.policy_source import read_policy_choice
from cli.remote.connection import field_to_option, format_field_errors, report_field_errors
from cli.remote.output import show_json
from greentune.client import Client
from greentune.errors import Problem
from greentune.models import Job
from greentune.requests import RunOptions

RELATIVE_TIME = re.compile(r"\+(\d+(?:\.\d+)?)([mhd])")
UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class RunRequest:
    """A run as described by the options."""

    model: str
    dataset: str
    options: RunOptions


def parse_run_request(
    *,
    model: str,
    dataset: str,
    method: str | None,
    policy: str | None,
    zone: str | None,
    deadline: str | None,
    priority: int | None,
    metadata: Sequence[str],
    hyperparameters: Mapping[str, Any],
) -> RunRequest:
    """Parse a run's options. Raises `SettingError` for one that is not valid."""
    chosen = {name: value for name, value in hyperparameters.items() if value is not None}
    options = RunOptions(
        method=method,
        policy=None if policy is None else read_policy_choice(policy),
        zone=zone,
        deadline=None if deadline is None else parse_deadline(deadline, now=datetime.now(UTC)),
        priority=priority,
        hyperparameters=chosen or None,
        metadata=parse_metadata(metadata) or None,
    )
    return RunRequest(model, dataset, options)


def submit(client: Client, run: RunRequest, *, as_json: bool) -> Job:
    """Submit a run, after uploading its rows where they are a file, and show the job's id."""
    dataset = upload_if_file(client, run.dataset)
    with report_field_errors(field_to_option):
        job = client.submit(run.model, dataset, **run.options)
    if as_json:
        show_json(job)
    else:
        typer.echo(f"submitted, {job.status}; `greentune watch {job.id}` follows it", err=True)
        typer.echo(job.id)
    return job


def upload_if_file(client: Client, dataset: str, *, option: str = "--dataset") -> str:
    """Return the id of a dataset: that of the uploaded file, or as given."""
    file = Path(dataset)
    if file.is_dir():
        raise SettingError(f"{option}: {dataset} is a folder: expected a file of rows, or the id of an upload")
    if not file.is_file():
        if file.suffix or len(file.parts) > 1:
            raise SettingError(f"{option}: there is no file {dataset}")
        return dataset
    try:
        uploaded = client.upload_dataset(file)
    except OSError as error:
        raise SettingError(f"{option}: {dataset}: {error.strerror}") from error
    except Problem as problem:
        if not problem.errors:
            raise
        raise SettingError(f"{option}: {dataset}: {format_field_errors(problem)}") from problem
    typer.echo(f"uploaded {file.name}: {uploaded.rows:,} rows, {uploaded.id}", err=True)
    return uploaded.id


def parse_deadline(text: str, *, now: datetime) -> datetime:
    """Parse a time in ISO 8601 (UTC without an offset), or a span from `now`. Raises `SettingError`."""
    span = RELATIVE_TIME.fullmatch(text)
    try:
        if span is not None:
            return now + timedelta(**{UNITS[span[2]]: float(span[1])})
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.utcoffset() is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise SettingError(
            f"--deadline: {text!r} is not a time: expected ISO 8601, such as 2026-11-23T10:00:00Z, or from now, as +12h"
        ) from None


def parse_metadata(metadata: Sequence[str]) -> dict[str, str]:
    """Parse `KEY=VALUE` options into a mapping. Raises `SettingError`."""
    found = {}
    for given in metadata:
        name, mark, value = given.partition("=")
        if not name or not mark:
            raise SettingError(f"--metadata: {given!r}: expected KEY=VALUE")
        found[name] = value
    return found
