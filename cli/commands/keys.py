"""`greentune keys`: at the database, or through the service at --url."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.options import AsJson, DataDir, Key
from cli.remote.connection import field_to_option, open_client, report_field_errors
from cli.remote.output import Columns, format_short_time, show_json, show_list

if TYPE_CHECKING:
    from greentune.models import Key as ServiceKey

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
COLUMNS: "Columns[ServiceKey]" = {
    "key": lambda key: key.id,
    "begins": lambda key: f"gtk_{key.hint}…",
    "role": lambda key: key.role,
    "owner": lambda key: key.owner,
    "state": lambda key: _format_state(key),
    "last used (UTC)": lambda key: format_short_time(key.last_used_at),
    "name": lambda key: key.name,
}


@app.command()
def create(
    owner: Annotated[str, typer.Option(help="Owner whose jobs and datasets the key gives access to.")],
    role: Annotated[
        Literal["user", "operator"], typer.Option(help="An operator's key gives access to everything, keys included.")
    ] = "user",
    name: Annotated[str, typer.Option(help="Purpose of the key.")] = "",
    days: Annotated[
        float | None, typer.Option(help="Days until it expires; without it, never.", min=0, max=36500)
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    url: ServiceUrl = None,
    key: Key = None,
) -> None:
    """Create a key, and show it once."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    if url is None:
        from cli.configuration import read_settings
        from cli.local.keys import create as create_at_database

        settings = read_settings(data_dir=data_dir)
        issued = create_at_database(settings, owner=owner, role=role, name=name, expires_at=expires_at)
    else:
        with open_client(url, key) as client, report_field_errors(_name_field):
            issued = client.create_key(owner, role=role, name=name, expires_at=expires_at)
    if as_json:
        show_json(issued)
        return
    # The key alone goes to stdout.
    typer.echo(f"{issued.id}: a key for {issued.owner} ({issued.role}), shown this once", err=True)
    typer.echo(issued.key)


@app.command("list")
def list_keys(data_dir: DataDir = None, as_json: AsJson = False, url: ServiceUrl = None, key: Key = None) -> None:
    """List keys without their text: id, first characters, role, owner, and validity."""
    if url is not None:
        with open_client(url, key) as client:
            show_list(client.keys(), COLUMNS, empty="no keys", as_json=as_json)
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
    if url is None:
        from cli.configuration import read_settings
        from cli.local.keys import revoke as revoke_at_database

        revoke_at_database(read_settings(data_dir=data_dir), key_id)
    else:
        with open_client(url, key) as client:
            client.revoke_key(key_id)
    typer.echo(f"{key_id}: revoked", err=True)


def _name_field(field: str) -> str:
    return "--days" if field == "expires_at" else field_to_option(field)


def _format_state(key: "ServiceKey") -> str:
    if key.revoked_at is not None:
        return f"revoked {format_short_time(key.revoked_at)}"
    return "until it is revoked" if key.expires_at is None else f"until {format_short_time(key.expires_at)}"
