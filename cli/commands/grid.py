"""`greentune zones`, `workers` and `models`: the grid, the service's processes, and its catalogue."""

from typing import Annotated

import typer

from cli.completion import complete_zone
from cli.options import AsJson, Key, Url

app = typer.Typer()


@app.command()
def zones(
    zone: Annotated[
        str | None,
        typer.Argument(metavar="ZONE", help="One zone; else all.", autocompletion=complete_zone, show_default=False),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show each zone's carbon intensity now, its source, and the next 24 h with the cleanest hours."""
    from cli.remote.connection import open_client
    from cli.remote.zones import show_zone, show_zones

    with open_client(url, key) as client:
        if zone is None:
            show_zones(client, as_json=as_json)
        else:
            show_zone(client, zone, as_json=as_json)


@app.command()
def workers(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Show the service's processes with their zone, device and job."""
    from cli.remote.connection import open_client
    from cli.remote.inventory import show_workers

    with open_client(url, key) as client:
        show_workers(client, as_json=as_json)


@app.command()
def models(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Show the models of the service's catalogue."""
    from cli.remote.connection import open_client
    from cli.remote.inventory import show_models

    with open_client(url, key) as client:
        show_models(client, as_json=as_json)
