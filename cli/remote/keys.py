"""`greentune keys` through a service, for operators without access to its database."""

from datetime import UTC, datetime, timedelta

import typer

from cli.remote.connection import field_to_option, report_field_errors
from cli.remote.output import format_short_time, show_json, show_list
from greentune.client import Client
from greentune.models import Key

HEADERS = ("key", "begins", "role", "owner", "state", "last used (UTC)", "name")


def create(client: Client, *, owner: str, role: str, name: str, days: float | None, as_json: bool) -> None:
    """Create a key, and show only its text on stdout."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with report_field_errors(lambda field: "--days" if field == "expires_at" else field_to_option(field)):
        issued = client.create_key(owner, role=role, name=name, expires_at=expires_at)
    if as_json:
        show_json(issued)
        return
    typer.echo(f"{issued.id}: a key for {issued.owner} ({issued.role}), shown this once", err=True)
    typer.echo(issued.key)


def show(client: Client, *, as_json: bool) -> None:
    """List every key, newest first, without its text."""
    show_list(list(client.keys()), HEADERS, _row, empty="no keys", as_json=as_json)


def revoke(client: Client, key_id: str) -> None:
    """Revoke a key."""
    client.revoke_key(key_id)
    typer.echo(f"{key_id}: revoked", err=True)


def _row(key: Key) -> tuple[str, ...]:
    last_used = format_short_time(key.last_used_at)
    return key.id, f"gtk_{key.hint}…", key.role, key.owner, _state(key), last_used, key.name


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return f"revoked {format_short_time(key.revoked_at)}"
    return "until it is revoked" if key.expires_at is None else f"until {format_short_time(key.expires_at)}"
