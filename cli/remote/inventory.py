"""`greentune models`, `workers` and `datasets`."""

from itertools import islice
from pathlib import Path

import typer

from api.figures import UNKNOWN, format_number, format_size
from cli.errors import SettingError
from cli.remote.output import format_short_time, show_json, show_list
from cli.remote.submission import upload_if_file
from greentune.client import Client
from greentune.models import Dataset, Model, Worker


def show_models(client: Client, *, as_json: bool) -> None:
    """Show the catalogue; a figure that is unknown before a model's first job is a dash."""
    headers = ("model", "parameters", "tensors", "smallest ρ", "longest row", "licence", "description")

    def row(model: Model) -> tuple[str, ...]:
        return (
            model.name,
            UNKNOWN if model.parameters is None else f"{model.parameters:,}",
            UNKNOWN if model.tensors is None else str(model.tensors),
            format_number(model.rho_floor),
            UNKNOWN if model.max_length is None else str(model.max_length),
            model.licence,
            model.description,
        )

    show_list(client.models(), headers, row, empty="the catalogue has no models", as_json=as_json)


def show_workers(client: Client, *, as_json: bool) -> None:
    """Show every process, with its last heartbeat."""
    headers = ("worker", "role", "state", "device", "zone", "PUE", "job", "last seen (UTC)")

    def row(worker: Worker) -> tuple[str, ...]:
        return (
            worker.id,
            worker.role,
            worker.state,
            worker.device,
            worker.zone or UNKNOWN,
            UNKNOWN if worker.pue is None else f"{worker.pue:.4g}",
            worker.job or UNKNOWN,
            format_short_time(worker.last_seen_at),
        )

    show_list(client.workers(), headers, row, empty="no workers", as_json=as_json)


def show_datasets(client: Client, *, limit: int, as_json: bool) -> None:
    """Show the newest uploads."""
    headers = ("dataset", "name", "format", "rows", "size", "uploaded (UTC)")

    def row(found: Dataset) -> tuple[str, ...]:
        size = format_size(found.bytes)
        return found.id, found.name, found.format, f"{found.rows:,}", size, format_short_time(found.created_at)

    show_list(list(islice(client.datasets(), limit)), headers, row, empty="no datasets", as_json=as_json)


def upload_dataset(client: Client, file: Path, *, as_json: bool) -> None:
    """Upload a file of rows, and show the dataset's id."""
    if not file.is_file():
        raise SettingError(f"FILE: there is no file {file}")
    dataset_id = upload_if_file(client, str(file), option="FILE")
    if as_json:
        show_json(client.dataset(dataset_id))
    else:
        typer.echo(dataset_id)


def delete_dataset(client: Client, dataset_id: str) -> None:
    """Delete a dataset."""
    client.delete_dataset(dataset_id)
    typer.echo(f"{dataset_id}: deleted", err=True)
