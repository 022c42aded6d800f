"""`greentune datasets`: list, upload and delete training rows."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.figures import UNKNOWN, format_forms, format_size
from cli.columns import map_columns, parse_columns
from cli.commands.submission import upload_if_file
from cli.errors import SettingError
from cli.options import AsJson, ColumnOptions, with_client
from cli.remote.output import Columns, format_short_time, show_json, show_list

if TYPE_CHECKING:
    from greentune.client import Client
    from greentune.models import Dataset

app = typer.Typer(help="List, upload and delete training rows.", no_args_is_help=True)

COLUMNS: "Columns[Dataset]" = {
    "dataset": lambda dataset: dataset.id,
    "name": lambda dataset: dataset.name,
    "format": lambda dataset: dataset.format,
    "rows": lambda dataset: f"{dataset.rows:,}",
    "forms": lambda dataset: format_forms(dataset.contents.forms) if dataset.contents else UNKNOWN,
    "size": lambda dataset: format_size(dataset.bytes),
    "uploaded (UTC)": lambda dataset: format_short_time(dataset.created_at),
}


@app.command("list")
@with_client
def list_datasets(
    client: "Client",
    limit: Annotated[int, typer.Option(help="Largest number shown.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """List uploads, the newest first."""
    show_list(islice(client.datasets(), limit), COLUMNS, empty="no datasets", as_json=as_json)


@app.command()
@with_client
def upload(
    client: "Client",
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines, a JSON array, CSV, TSV or Parquet.")],
    column: ColumnOptions = None,
    as_json: AsJson = False,
) -> None:
    """Upload rows, and show the id of the dataset; every row is validated."""
    if not file.is_file():
        raise SettingError(f"FILE: there is no file {file}")
    dataset_id = upload_if_file(client, str(file), map_columns(parse_columns(column)), option="FILE")
    if as_json:
        show_json(client.dataset(dataset_id))
    else:
        typer.echo(dataset_id)


@app.command()
@with_client
def delete(
    client: "Client",
    dataset: Annotated[str, typer.Argument(metavar="ID", help="As `greentune datasets list` shows it.")],
) -> None:
    """Delete a dataset that no unfinished job needs."""
    client.delete_dataset(dataset)
    typer.echo(f"{dataset}: deleted", err=True)
