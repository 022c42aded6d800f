"""`greentune datasets`: list, upload and delete training rows."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson, Key, Url

app = typer.Typer(help="List, upload and delete training rows.", no_args_is_help=True)


@app.command("list")
def list_datasets(
    limit: Annotated[int, typer.Option(help="Largest number shown.", min=1)] = 50,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List uploads, the newest first."""
    from cli.remote.connection import open_client
    from cli.remote.inventory import show_datasets

    with open_client(url, key) as client:
        show_datasets(client, limit=limit, as_json=as_json)


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows as JSON Lines or Parquet.")],
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Upload rows, and show the id of the dataset; every row is validated."""
    from cli.remote.connection import open_client
    from cli.remote.inventory import upload_dataset

    with open_client(url, key) as client:
        upload_dataset(client, file, as_json=as_json)


@app.command()
def delete(
    dataset: Annotated[str, typer.Argument(metavar="ID", help="As `greentune datasets list` shows it.")],
    url: Url = None,
    key: Key = None,
) -> None:
    """Delete a dataset that no unfinished job needs."""
    from cli.remote.connection import open_client
    from cli.remote.inventory import delete_dataset

    with open_client(url, key) as client:
        delete_dataset(client, dataset)
