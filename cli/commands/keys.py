"""`greentune keys`: beside the database, or through a service that is named by --url."""

from typing import Annotated, Literal

import typer

from cli.options import AsJson, DataDir, Key

app = typer.Typer(
    help="Make, list and revoke API keys: at DATABASE_URL with GREENTUNE_SECRET_KEY, beside a running `serve`, or "
    "through the service at --url.",
    no_args_is_help=True,
)

# Not from the environment: the first key of a service can only be made at its database.
ServiceUrl = Annotated[
    str | None,
    typer.Option("--url", help="Through the service there, with an operator's key.", rich_help_panel="Service"),
]


@app.command()
def create(
    owner: Annotated[str, typer.Option(help="Whose jobs and datasets the key sees.")],
    role: Annotated[
        Literal["user", "operator"], typer.Option(help="An operator's key sees everything, and makes keys.")
    ] = "user",
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    days: Annotated[
        float | None, typer.Option(help="It works for so long; without it, until it is revoked.", min=0, max=36500)
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    url: ServiceUrl = None,
    key: Key = None,
) -> None:
    """Make a key, and show it this once."""
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
    """Show every key without its text: id, first characters, role, owner, and whether it can be used."""
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
    """Take a key out of use for good."""
    if url is not None:
        from cli.remote import keys
        from cli.remote.connection import open_client

        with open_client(url, key) as client:
            keys.revoke(client, key_id)
        return
    from cli.configuration import read_settings
    from cli.local.keys import revoke as run

    run(read_settings(data_dir=data_dir), key_id)
