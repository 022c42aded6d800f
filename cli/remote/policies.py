"""`greentune policy list`, `show`, `apply` and `delete`, and the simulation on a service's stored readings."""

from datetime import datetime
from typing import Any

import typer

from cli.errors import SettingError
from cli.local.policy_source import read_policy_choice, read_policy_json
from cli.remote.connection import field_to_option, report_field_errors
from cli.remote.output import format_short_time, show_json, show_list
from greentune.client import Client
from greentune.models import Policy, Simulation


def show_policies(client: Client, *, as_json: bool) -> None:
    """Show the newest version of each policy."""
    headers = ("policy", "version", "kind", "gate", "stored (UTC)")

    def row(stored: Policy) -> tuple[str, ...]:
        gate = (stored.policy.get("gate") or {}).get("mode", "none")
        kind = str(stored.policy.get("kind"))
        return stored.name, str(stored.version), kind, str(gate), format_short_time(stored.created_at)

    show_list(client.policies(), headers, row, empty="no policies are stored", as_json=as_json)


def show_policy(client: Client, name: str) -> None:
    """Show one policy as JSON, the form in which it is written."""
    show_json(client.policy(name))


def apply_policy(client: Client, name: str, given: str, *, if_version: int | None = None, as_json: bool) -> None:
    """Store the next version of a policy. Raises `SettingError` with every field error.

    With `if_version` it raises `Problem` 412 where another version is the newest.
    """
    body = read_policy_json(given, "POLICY")
    if not isinstance(body, dict):
        raise SettingError("POLICY: expected a JSON object, in braces")
    with report_field_errors(lambda field: "NAME" if field == "name" else f"POLICY: {field.removeprefix('policy.')}"):
        stored = client.put_policy(name, body, if_version=if_version)
    if as_json:
        show_json(stored)
    else:
        typer.echo(f"{stored.name}: version {stored.version}")


def delete_policy(client: Client, name: str) -> None:
    """Delete every version of a policy."""
    client.delete_policy(name)
    typer.echo(f"{name}: deleted", err=True)


def simulate(client: Client, given: str, *, zone: str, start: datetime | None, **run: Any) -> Simulation:
    """Simulate a policy on a zone's stored readings; `given` is a name or a body. Raises `SettingError`."""
    with report_field_errors(_simulation_option):
        return client.simulate(read_policy_choice(given, where="POLICY"), zone=zone, start=start, **run)


def _simulation_option(field: str) -> str:
    if field.partition(".")[0] == "policy":
        return f"POLICY: {field.removeprefix('policy').removeprefix('.')}".rstrip(": ")
    return {"zone": "--zone-history", "from": "--zone-history", "to": "--zone-history"}.get(
        field, field_to_option(field)
    )
