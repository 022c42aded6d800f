"""`greentune submit` and `estimate`: a run as its options describe it, and its predicted cost."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from api.figures import UNKNOWN, format_duration, format_forms, format_number, format_percent
from cli.columns import COLUMN_OPTION, map_columns, parse_columns
from cli.completion import complete_policy, complete_zone
from cli.errors import SettingError
from cli.hyperparameters import HyperparameterCommand, HyperparameterOptions
from cli.job_file import ConfigOption, read_job_file
from cli.local.policy_source import read_policy_choice
from cli.options import AsJson, ColumnOptions, Metadata, is_file, with_client, with_options_of
from cli.remote.connection import field_to_option, report_field_errors
from cli.remote.figures import format_figure
from cli.remote.output import format_short_time, replace_unprintable, show_json, show_table
from greencore.clock import parse_utc
from greencore.dataset.containers import AS_THEY_ARE, ColumnMapping
from greentune.errors import Problem
from greentune.requests import RunOptions

if TYPE_CHECKING:
    from greentune.client import Client
    from greentune.models import Estimate
    from greentune.models import Memory as EstimatedMemory
    from greentune.models import Run as EstimatedRun

app = typer.Typer()

SHORT_NUMBER = re.compile(r"[0-9]{1,9}")  # the service refuses what is none
RELATIVE_TIME = re.compile(r"\+(\d+(?:\.\d+)?)([mhd])")
UNITS = {"m": "minutes", "h": "hours", "d": "days"}

Model = Annotated[
    str | None,
    typer.Option(
        help="A name in the service's catalogue, as `greentune models` shows them, or a finished job, job_…, whose "
        "result is trained further."
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="A file of rows to upload: JSON Lines, a JSON array, CSV, TSV or Parquet; or the id of an upload.",
    ),
]
ValidationOption = Annotated[
    str | None,
    typer.Option(
        "--validation-dataset",
        help="A file of rows to upload, or the id of an upload, to evaluate on; else a share of the rows.",
        rich_help_panel="Training",
    ),
]


def parse_metadata(metadata: Sequence[str]) -> dict[str, str]:
    """Parse `KEY=VALUE` options into a mapping. Raises `SettingError`."""
    found = {}
    for given in metadata:
        name, mark, value = given.partition("=")
        if not name or not mark:
            raise SettingError(f"--metadata: {given!r}: expected KEY=VALUE")
        found[name] = value
    return found


def upload_if_file(
    client: "Client",
    dataset: str,
    columns: ColumnMapping = AS_THEY_ARE,
    *,
    option: str = "--dataset",
    columns_option: str = COLUMN_OPTION,
    mapped_elsewhere: bool = False,
) -> str:
    """Return the id of a dataset: that of the uploaded file, of which `columns` are mapped, or as given.

    Columns beside an id are refused unless they are those of another file, as `mapped_elsewhere` says.
    """
    file = Path(dataset)
    if not is_file(dataset, option):
        if file.is_dir():
            raise SettingError(f"{option}: {dataset} is a folder: expected a file of rows, or the id of an upload")
        if file.suffix or len(file.parts) > 1:
            raise SettingError(f"{option}: there is no file {dataset}")
        if columns.sources and not mapped_elsewhere:
            raise SettingError(f"{columns_option}: {dataset} is the id of an upload, whose columns were mapped then")
        return dataset
    try:
        uploaded = client.upload_dataset(file, columns=columns.sources)
    except OSError as error:
        raise SettingError(f"{option}: {dataset}: {error.strerror}") from error
    except Problem as problem:
        if not problem.errors:
            raise
        faults = (each.message if each.field == "file" else f"{each.field}: {each.message}" for each in problem.errors)
        raise SettingError(f"{option}: {dataset}: {'; '.join(faults)}") from problem
    contents = uploaded.contents
    forms = f" ({format_forms(contents.forms)})" if contents else ""
    typer.echo(f"uploaded {file.name}: {uploaded.rows:,} rows{forms}, {uploaded.id}", err=True)
    if contents and contents.ignored_fields:
        typer.echo(f"not used of its rows: {', '.join(contents.ignored_fields)}", err=True)
    return uploaded.id


@contextmanager
def _run(
    client: "Client",
    config: Path | None,
    model: str | None,
    dataset: str | None,
    columns: Mapping[str, str],
    options: RunOptions,
) -> Iterator[tuple[str, str, RunOptions]]:
    """Yield model, dataset and options of a run by its file and its options, with files of rows uploaded.

    Raises `SettingError` that names the option or the key of the file for what is missing, and for what is refused
    within the block.
    """
    file, given = read_job_file(config), {"model": model, "dataset": dataset, "columns": columns or None, **options}
    body = file.merge_run(given)

    def where(key: str) -> str:
        return file.where(key, given=given, option=field_to_option(key))

    if isinstance(deadline := body.get("deadline"), str):
        body["deadline"] = _parse_deadline(deadline, now=datetime.now(UTC), where=where("deadline"))
    datasets = {key: body[key] for key in ("dataset", "validation_dataset") if key in body}
    columns_option = file.where("columns", given=given, option=COLUMN_OPTION)
    mapping = map_columns(body.pop("columns", {}), where=columns_option)
    mapped = any(is_file(dataset_or_file, where(key)) for key, dataset_or_file in datasets.items())
    # An upload that replaces the dataset of a file of settings needs none of its columns.
    replaced = dataset is not None and not columns
    for key, dataset_or_file in datasets.items():
        body[key] = upload_if_file(
            client,
            dataset_or_file,
            mapping,
            option=where(key),
            columns_option=columns_option,
            mapped_elsewhere=mapped or replaced,
        )
    with report_field_errors(where):
        yield body.pop("model"), body.pop("dataset"), cast(RunOptions, body)


def _parse_deadline(text: str, *, now: datetime, where: str = "--deadline") -> datetime:
    """Parse a time in ISO 8601 (UTC without an offset), or a span from `now`. Raises `SettingError`."""
    span = RELATIVE_TIME.fullmatch(text)
    try:
        return parse_utc(text) if span is None else now + timedelta(**{UNITS[span[2]]: float(span[1])})
    except (ValueError, OverflowError):
        raise SettingError(
            f"{where}: {text!r} is not a time: expected ISO 8601, such as 2026-11-23T10:00:00Z, or from now, as +12h"
        ) from None


def _parse_run_options(
    validation_dataset: ValidationOption = None,
    name: Annotated[str | None, typer.Option(help="A name for people, also of the result.")] = None,
    method: Annotated[
        str | None, typer.Option(help="auto, greentrainer, full, lora, prefix, top2 or bitfit; else auto.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="A stored policy's name, a JSON file, or JSON in braces; else ρ = 0.6 at once.",
            autocompletion=complete_policy,
        ),
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="Where to run; else any zone with a worker.", autocompletion=complete_zone)
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            help="When it has to be over: ISO 8601 (UTC without an offset), or from now, as +12h, +90m or +2d."
        ),
    ] = None,
    priority: Annotated[int | None, typer.Option(help="From -100 to 100: higher ones start first.")] = None,
    gpus: Annotated[
        str | None, typer.Option(help="GPUs of one machine, or auto: the fewest that hold the model; else 1.")
    ] = None,
    metadata: Metadata = None,
    hyperparameters: HyperparameterOptions = None,
) -> RunOptions:
    """Parse the options of a run. Raises `SettingError` for one that is not valid."""
    return RunOptions(
        name=name,
        validation_dataset=validation_dataset,
        method=method,
        policy=None if policy is None else read_policy_choice(policy),
        zone=zone,
        deadline=None if deadline is None else _parse_deadline(deadline, now=datetime.now(UTC)),
        priority=priority,
        resources=None if gpus is None else {"gpus": int(gpus) if SHORT_NUMBER.fullmatch(gpus) else gpus},
        hyperparameters=hyperparameters or None,
        metadata=parse_metadata(metadata or ()) or None,
    )


@app.command(cls=HyperparameterCommand)
@with_client
@with_options_of(_parse_run_options, "options")
def submit(
    client: "Client",
    model: Model = None,
    dataset: DatasetOption = None,
    config: ConfigOption = None,
    *,
    options: RunOptions,
    column: ColumnOptions = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end, as `greentune watch`.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a fine-tuning run to the service, and show the job's id; a file of rows is uploaded first."""
    from cli.remote.watching import watch as watch_job

    with _run(client, config, model, dataset, parse_columns(column), options) as (chosen, rows, run):
        job = client.submit(chosen, rows, **run)
    if as_json and not watch:
        show_json(job)
    else:
        typer.echo(f"submitted, {job.status}; `greentune watch {job.id}` follows it", err=True)
        typer.echo(job.id)
    if watch:
        watch_job(client, job.id, as_json=as_json)


@app.command(cls=HyperparameterCommand)
@with_client
@with_options_of(_parse_run_options, "options")
def estimate(
    client: "Client",
    model: Model = None,
    dataset: DatasetOption = None,
    config: ConfigOption = None,
    *,
    options: RunOptions,
    column: ColumnOptions = None,
    as_json: AsJson = False,
) -> None:
    """Estimate a run's time, energy and emissions, now and in the best window; a file of rows is uploaded for it."""
    with _run(client, config, model, dataset, parse_columns(column), options) as (chosen, rows, run):
        found = client.estimate(chosen, rows, **run)
    if as_json:
        show_json(found)
    else:
        _show_estimate(found)


def _show_estimate(found: "Estimate") -> None:
    now, best = _column(found.now), _column(found.best)
    show_table(("", "now", "best window"), [(name, now[name], best[name]) for name in now])
    saved = UNKNOWN
    if found.saving is not None:
        saved = f"{format_number(found.saving.gco2e)} gCO2e, {format_percent(found.saving.share)} (estimate)"
    lines = [
        f"saved by the best window: {saved}",
        f"place: {found.place.zone}, {found.place.reason}; intensity: {found.place.basis}",
        f"pace: {found.pace.basis}",
        f"memory: {_format_memory(found.memory)}; {found.memory.basis}",
        f"queue: {found.queue.running} running, {found.queue.ahead} ahead; PUE {found.pue:g}",
    ]
    if found.budget is not None:
        kept = {True: "can be kept", False: "cannot be kept", None: "may not be kept"}[found.budget.can_be_kept]
        lines.append(f"budget of {format_number(found.budget.given_gco2e)} gCO2e: {kept}; {found.budget.basis}")
    for line in (*lines, *(f"note: {note}" for note in found.notes)):
        typer.echo(replace_unprintable(line))


def _format_memory(memory: "EstimatedMemory") -> str:
    """Return "23 of 80 GB", of the peak and the largest live device; a figure that is not known is a dash.

    Where the peak is not known it is "at least 16 of 80 GB".
    """
    bound = "at least " if memory.peak_bytes is None and memory.least_bytes is not None else ""
    size, device = (
        UNKNOWN if size is None else f"{size / 1e9:.3g}"
        for size in (memory.least_bytes if bound else memory.peak_bytes, memory.device_bytes)
    )
    return f"{bound}{size} of {device} GB"


def _column(run: "EstimatedRun") -> dict[str, str]:
    return {
        "starts (UTC)": format_short_time(run.starts_at),
        "ends (UTC)": format_short_time(run.ends_at),
        "computing time": format_figure(run.hours, lambda hours: format_duration(hours * 3600)),
        "mean ρ": format_number(run.rho),
        "FLOPs": format_figure(run.flops, "{:.3g}".format),
        "kWh": format_figure(run.energy_kwh),
        "gCO2e/kWh": format_number(run.gco2e_per_kwh),
        "gCO2e": format_figure(run.emissions_gco2e),
        "meets the deadline": {True: "yes", False: "no", None: UNKNOWN}[run.meets_deadline],
        "reason": run.why,
    }
