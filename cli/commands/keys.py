"""`greentune keys`: at the database, or through the service at --url."""

from typing import Annotated, Literal

import typer

from cli.options import AsJson, DataDir, Key

app = typer.Typer(
    help="Create, list and revoke API keys: at DATABASE_URL with GREENTUNE_SECRET_KEY, beside a running `serve`, or "
    "through the service at --url.",
    no_args_is_help=True,
)

# Not from the environment: the first key of a service can only be created at its database.
ServiceUrl = Annotated[
    str | None,
    typer.Option("--url", help="Address of a service to use, with an operator's key.", rich_help_panel="Service"),
]


@app.command()
def create(
    owner: Annotated[str, typer.Option(help="Owner whose jobs and datasets the key gives access to.")],
    role: Annotated[
        Literal["user", "operator"], typer.Option(help="An operator's key gives access to everything, keys included.")
    ] = "user",
    name: Annotated[str, typer.Option(help="Purpose of the key.")] = "",
    days: Annotated[
        float | None,
        typer.Option(help="Days until it expires; without it, never.", min=0, max=36500),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    url: ServiceUrl = None,
    key: Key = None,
) -> None:
    """Create a key, and show it once."""
    if url is not None:
        from cli.remote import keys
        from cli.remote.connection import open_client

        with open_client(url, key) as client:
            keys.create(client, owner=owner, role=role, name=name, days=days, as_json=as_json)
        return
    from cli.configuration import read_settings
    from cli.local.keys import create as run

    run(read_settings(data_dir=data_dir), owner=owner, role=role, name=name, days=days, as_json=as_json)


@app.command("list")
def list_keys(data_dir: DataDir = None, as_json: AsJson = False, url: ServiceUrl = None, key: Key = None) -> None:
    """List keys without their text: id, first characters, role, owner, and validity."""
    if url is not None:
        from cli.remote import keys
        from cli.remote.connection import open_client

        with open_client(url, key) as client:
            keys.show(client, as_json=as_json)
        return
    from cli.configuration import read_settings
    from cli.local.keys import show

    show(read_settings(data_dir=data_dir), as_json=as_json)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `greentune keys list` shows it.")],
    data_dir: DataDir = None,
    url: ServiceUrl = None,
    key: Key = None,
) -> None:
    """Revoke a key permanently."""
    if url is not None:
        from cli.remote import keys
        from cli.remote.connection import open_client

        with open_client(url, key) as client:
            keys.revoke(client, key_id)
        return
    from cli.configuration import read_settings
    from cli.local.keys import revoke as run

    run(read_settings(data_dir=data_dir), key_id)
