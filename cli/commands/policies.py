"""`greentune policy`: check and simulate policies; list, show, store and delete those of a service."""

from pathlib import Path
from typing import Annotated

import typer

from cli.completion import complete_zone
from cli.options import AsJson, Key, PolicyArgument, PolicyName, Url

app = typer.Typer(
    help="Check a policy, simulate it on recorded intensities, and manage a service's stored policies.",
    no_args_is_help=True,
)


@app.command()
def check(policy: PolicyArgument, as_json: AsJson = False) -> None:
    """Show a policy with its defaults, or every error in it. Needs no service."""
    from cli.local.policy import check as run

    run(policy, as_json=as_json)


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
    from cli.local.policy import SimulationOptions, simulate_on_trace, simulate_on_zone

    options = SimulationOptions(
        work_hours=work_hours,
        epochs=epochs,
        deadline_hours=deadline_hours,
        start=start,
        forecast=forecast,
        power_w=power_w,
        idle_power_w=idle_power_w,
    )
    if zone_history is not None:
        simulate_on_zone(policy, zone_history, options, trace=trace, url=url, key=key, as_json=as_json)
    else:
        simulate_on_trace(policy, trace, options, zone=zone, as_json=as_json)


@app.command("list")
def list_policies(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List the service's stored policies."""
    from cli.remote.connection import open_client
    from cli.remote.policies import show_policies

    with open_client(url, key) as client:
        show_policies(client, as_json=as_json)


@app.command()
def show(
    name: PolicyName,
    as_json: Annotated[bool, typer.Option("--json", help="The default.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show the newest version of a stored policy, as JSON."""
    from cli.remote.connection import open_client
    from cli.remote.policies import show_policy

    with open_client(url, key) as client:
        show_policy(client, name)


@app.command()
def apply(
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
    url: Url = None,
    key: Key = None,
) -> None:
    """Store a policy as the next version of its name (operators). Jobs keep the version that they have."""
    from cli.remote.connection import open_client
    from cli.remote.policies import apply_policy

    with open_client(url, key) as client:
        apply_policy(client, name, policy, if_version=if_version, as_json=as_json)


@app.command()
def delete(name: PolicyName, url: Url = None, key: Key = None) -> None:
    """Delete every version of a policy (operators). Jobs keep the version that they have."""
    from cli.remote.connection import open_client
    from cli.remote.policies import delete_policy

    with open_client(url, key) as client:
        delete_policy(client, name)
