"""`greentune policy list`, `show`, `apply` and `delete`, and a simulation on what the service has stored."""

from datetime import datetime
from typing import Any

import typer

from cli.errors import SettingError
from cli.local.policy_source import read_policy_choice, read_policy_json
from cli.remote.connection import field_to_option, report_field_errors
from cli.remote.output import format_short_time, show_json, show_table
from greentune.client import Client
from greentune.models import Simulation


def show_policies(client: Client, *, as_json: bool) -> None:
    """The newest version of each."""
    policies = client.policies()
    if as_json:
        show_json(policies)
        return
    rows = (
        (
            each.name,
            str(each.version),
            str(each.policy.get("kind")),
            str((each.policy.get("gate") or {}).get("mode", "none")),
            format_short_time(each.created_at),
        )
        for each in policies
    )
    show_table(("policy", "version", "kind", "gate", "stored (UTC)"), rows, empty="no policies are stored")


def show_policy(client: Client, name: str) -> None:
    """One policy, as JSON: it is written so, too."""
    show_json(client.policy(name))


def apply_policy(client: Client, name: str, given: str, *, if_version: int | None = None, as_json: bool) -> None:
    """Store the next version of a policy. Raises `SettingError` with every field at fault.

    With `if_version` it raises the problem 412 where another version is the newest by now.
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
    """Hold a policy, stored or given, against the stored readings of a zone. Raises `SettingError` for a bad option."""
    with report_field_errors(_simulation_option):
        return client.simulate(read_policy_choice(given, where="POLICY"), zone=zone, start=start, **run)


def _simulation_option(field: str) -> str:
    if field.partition(".")[0] == "policy":
        return f"POLICY: {field.removeprefix('policy').removeprefix('.')}".rstrip(": ")
    return {"zone": "--zone-history", "from": "--zone-history", "to": "--zone-history"}.get(
        field, field_to_option(field)
    )
