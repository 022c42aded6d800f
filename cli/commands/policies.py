"""`greentune policy`: check and simulate policies; list, show, store and delete those of a service."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.completion import complete_zone
from cli.errors import SettingError
from cli.local.policy_source import read_policy_choice, read_policy_object
from cli.options import AsJson, Key, PolicyArgument, PolicyName, Url, check_choice, with_client
from cli.remote.connection import field_to_option, open_client, report_field_errors
from cli.remote.output import Columns, format_short_time, show_json, show_list
from greencore.clock import parse_utc

if TYPE_CHECKING:
    from greentune.client import Client
    from greentune.models import Policy

app = typer.Typer(
    help="Check a policy, simulate it on recorded intensities, and manage a service's stored policies.",
    no_args_is_help=True,
)

COLUMNS: "Columns[Policy]" = {
    "policy": lambda stored: stored.name,
    "version": lambda stored: str(stored.version),
    "kind": lambda stored: str(stored.policy.get("kind")),
    "gate": lambda stored: str((stored.policy.get("gate") or {}).get("mode", "none")),
    "stored (UTC)": lambda stored: format_short_time(stored.created_at),
}


@app.command()
def check(policy: PolicyArgument, as_json: AsJson = False) -> None:
    """Show a policy with its defaults, or every error in it. Needs no service."""
    from rich.console import Console

    from cli.local.policy_simulation import read_policy

    body = read_policy(policy).to_json()
    if as_json:
        show_json(body)
    else:
        Console().print_json(data=body)


@app.command()
def simulate(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY", help="A JSON file, or JSON in braces; with --zone-history a stored policy's name, too."
        ),
    ],
    work_hours: Annotated[float, typer.Option(help="The run's length at ρ = 1.")],
    epochs: Annotated[int, typer.Option(help="Number of epochs, of equal length.")],
    trace: Annotated[
        Path | None, typer.Option(help="CSV of intensities: datetime, gco2e_per_kwh; or Electricity Maps'.")
    ] = None,
    zone_history: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="Instead of a trace: the readings that the service has stored of this zone.",
            autocompletion=complete_zone,
        ),
    ] = None,
    zone: Annotated[str | None, typer.Option(help="Name of the trace's zone.")] = None,
    deadline_hours: Annotated[
        float | None, typer.Option(help="Hours from the start; without it the gate's max_delay_hours count.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="Start time; without it every full hour of the trace.")] = None,
    forecast: Annotated[str, typer.Option(help="Forecast of the gate: own, persistence or perfect.")] = "own",
    power_w: Annotated[float, typer.Option(help="Power while computing.")] = 300.0,
    idle_power_w: Annotated[float, typer.Option(help="Power while waiting or paused.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Show the response of POST /policies/simulate.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Simulate a policy's emissions on recorded intensities. With a trace it needs no service."""
    from cli.local.policy_simulation import read_policy, simulate_on_trace
    from cli.local.simulation_view import show_simulation
    from greencore.policy.gate.forecasts import FORECASTS

    check_choice("--forecast", forecast, FORECASTS)
    try:
        starts_at = None if start is None else parse_utc(start)
    except (ValueError, OverflowError):
        raise SettingError(
            f"--start: {start!r} is not a time: expected ISO 8601, such as 2026-11-23T10:00:00Z (UTC without an offset)"
        ) from None
    run: dict[str, Any] = {
        "start": starts_at,
        "work_hours": work_hours,
        "epochs": epochs,
        "deadline_hours": deadline_hours,
        "forecast": forecast,
        "power_w": power_w,
        "idle_power_w": idle_power_w,
    }
    if zone_history is None:
        if trace is None:
            raise SettingError("--trace: name a file of intensities, or a zone of the service with --zone-history")
        found = simulate_on_trace(read_policy(policy), trace, zone=zone, **run)
    else:
        if trace is not None:
            raise SettingError("--trace: a trace and --zone-history exclude each other: give one of them")
        with open_client(url, key) as client, report_field_errors(_simulation_option):
            found = client.simulate(read_policy_choice(policy, "POLICY"), zone=zone_history, **run)
    if as_json:
        show_json(found)
    else:
        show_simulation(found)


@app.command("list")
@with_client
def list_policies(client: "Client", as_json: AsJson = False) -> None:
    """List the service's stored policies."""
    show_list(client.policies(), COLUMNS, empty="no policies are stored", as_json=as_json)


@app.command()
@with_client
def show(
    client: "Client", name: PolicyName, as_json: Annotated[bool, typer.Option("--json", help="The default.")] = False
) -> None:
    """Show the newest version of a stored policy, as JSON."""
    show_json(client.policy(name))


@app.command()
@with_client
def apply(
    client: "Client",
    name: PolicyName,
    policy: PolicyArgument,
    if_version: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Only if N is still the newest version; 0: if there is none yet.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store a policy as the next version of its name (operators). Jobs keep the version that they have."""
    body = read_policy_object(policy, "POLICY")
    with report_field_errors(lambda field: "NAME" if field == "name" else f"POLICY: {field.removeprefix('policy.')}"):
        stored = client.put_policy(name, body, if_version=if_version)
    if as_json:
        show_json(stored)
    else:
        typer.echo(f"{stored.name}: version {stored.version}")


@app.command()
@with_client
def delete(client: "Client", name: PolicyName) -> None:
    """Delete every version of a policy (operators). Jobs keep the version that they have."""
    client.delete_policy(name)
    typer.echo(f"{name}: deleted", err=True)


def _simulation_option(field: str) -> str:
    if field.partition(".")[0] == "policy":
        return f"POLICY: {field.removeprefix('policy').removeprefix('.')}".rstrip(": ")
    return "--zone-history" if field in ("zone", "from", "to") else field_to_option(field)
