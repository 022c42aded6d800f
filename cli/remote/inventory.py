"""`greentune models`, `workers` and `datasets`: what a job can be made of, and who would run it."""

from pathlib import Path

import typer

from api.figures import UNKNOWN, format_number, format_size
from cli.errors import SettingError
from cli.remote.output import format_short_time, show_json, show_table
from cli.remote.submission import upload_if_file
from greentune.client import Client


def show_models(client: Client, *, as_json: bool) -> None:
    """The catalogue; what is not known of a model before its first job is a dash."""
    models = client.models()
    if as_json:
        show_json(models)
        return
    rows = (
        (
            model.name,
            UNKNOWN if model.parameters is None else f"{model.parameters:,}",
            UNKNOWN if model.tensors is None else str(model.tensors),
            format_number(model.rho_floor),
            UNKNOWN if model.max_length is None else str(model.max_length),
            model.licence,
            model.description,
        )
        for model in models
    )
    headers = ("model", "parameters", "tensors", "smallest ρ", "longest row", "licence", "description")
    show_table(headers, rows, empty="the catalogue holds no model")


def show_workers(client: Client, *, as_json: bool) -> None:
    """Every process, and when it was last seen."""
    workers = client.workers()
    if as_json:
        show_json(workers)
        return
    rows = (
        (
            worker.id,
            worker.role,
            worker.state,
            worker.device,
            worker.zone or UNKNOWN,
            UNKNOWN if worker.pue is None else f"{worker.pue:.4g}",
            worker.job or UNKNOWN,
            format_short_time(worker.last_seen_at),
        )
        for worker in workers
    )
    headers = ("worker", "role", "state", "device", "zone", "PUE", "job", "last seen (UTC)")
    show_table(headers, rows, empty="no workers")


def show_datasets(client: Client, *, limit: int, as_json: bool) -> None:
    """The newest uploads."""
    datasets = [dataset for _, dataset in zip(range(limit), client.datasets(), strict=False)]
    if as_json:
        show_json(datasets)
        return
    rows = (
        (each.id, each.name, each.format, f"{each.rows:,}", format_size(each.bytes), format_short_time(each.created_at))
        for each in datasets
    )
    show_table(("dataset", "name", "format", "rows", "size", "uploaded (UTC)"), rows, empty="no datasets")


def upload_dataset(client: Client, file: Path, *, as_json: bool) -> None:
    """Upload rows, and show the id."""
    if not file.is_file():
        raise SettingError(f"FILE: there is no file {file}")
    dataset_id = upload_if_file(client, str(file), option="FILE")
    if as_json:
        show_json(client.dataset(dataset_id))
    else:
        typer.echo(dataset_id)


def delete_dataset(client: Client, dataset_id: str) -> None:
    """Delete an upload."""
    client.delete_dataset(dataset_id)
    typer.echo(f"{dataset_id}: deleted", err=True)
