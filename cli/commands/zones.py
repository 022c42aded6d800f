"""`greentune zones`: each zone's carbon intensity now, and its forecast for the next day."""

from typing import TYPE_CHECKING, Annotated

import typer

from api.figures import UNKNOWN, format_duration, format_number
from cli.completion import complete_zone
from cli.options import AsJson, with_client
from cli.remote.figures import measured_or_estimated
from cli.remote.output import Columns, format_short_time, replace_unprintable, show_json, show_list
from cli.remote.sparkline import cleanest_hours, hourly_means, sparkline
from greentune.errors import Problem

if TYPE_CHECKING:
    from greentune.client import Client
    from greentune.models import Intensity, Provider, Zone

app = typer.Typer()

HOURS = 24
# Each takes a request: the forecasts of further zones are shown for one zone at a time.
MAX_FORECASTS = 30


@app.command()
@with_client
def zones(
    client: "Client",
    zone: Annotated[
        str | None,
        typer.Argument(metavar="ZONE", help="One zone; else all.", autocompletion=complete_zone, show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show each zone's carbon intensity now, its source, and the next 24 h with the cleanest hours."""
    if zone is None:
        _show_all(client, as_json=as_json)
    else:
        _show_one(client, zone, as_json=as_json)


def _show_all(client: "Client", *, as_json: bool) -> None:
    """Show every zone's newest reading, its source, and the next hours."""
    zones = client.zones()
    forecasts = {zone.zone: client.forecast(zone.zone, hours=HOURS) for zone in zones[:MAX_FORECASTS]}
    if as_json:
        show_json([{"zone": zone, "forecast": forecasts.get(zone.zone)} for zone in zones])
        return

    hours = {name: hourly_means(forecast.data, HOURS) for name, forecast in forecasts.items()}
    columns: Columns[Zone] = {
        "zone": lambda zone: zone.zone,
        "gCO2e/kWh": lambda zone: format_number(zone.newest.gco2e_per_kwh if zone.newest else None),
        "kind": lambda zone: measured_or_estimated(estimated=zone.newest.estimated) if zone.newest else UNKNOWN,
        "age": lambda zone: format_duration(zone.age_seconds),
        "source": lambda zone: zone.newest.source if zone.newest else UNKNOWN,
        "workers": lambda zone: str(zone.workers),
        f"next {HOURS} h": lambda zone: sparkline(hours.get(zone.zone, {})) or UNKNOWN,
        "cleanest hours (UTC)": lambda zone: cleanest_hours(hours.get(zone.zone, {})) or UNKNOWN,
    }
    show_list(zones, columns, empty="no zones", as_json=False)
    for zone in zones:
        _show_fault(zone.zone, zone.provider)


def _show_one(client: "Client", name: str, *, as_json: bool) -> None:
    """Show one zone: the intensity that would decide a job's ρ now, and the next hours."""
    forecast = client.forecast(name, hours=HOURS)
    intensity = _read_current_intensity(client, name)
    provider = next((zone.provider for zone in client.zones() if zone.zone == name), None)
    if as_json:
        show_json({"intensity": intensity, "forecast": forecast, "provider": provider})
        return
    typer.echo(replace_unprintable(f"{name}: {_format_intensity(intensity)}"))
    _show_fault(name, provider)
    if not forecast.data:
        typer.echo("next 24 h: there is no forecast yet")
        return
    hours = hourly_means(forecast.data, HOURS)
    known = [mean for mean in hours.values() if mean is not None]
    span = f"{format_number(min(known))} to {format_number(max(known))} gCO2e/kWh"
    typer.echo(f"next 24 h: {sparkline(hours)}  {span}, from {format_short_time(min(hours))} UTC on")
    typer.echo(f"cleanest hours (UTC): {cleanest_hours(hours)}")
    until = format_short_time(forecast.provider_until) if forecast.provider_until else None
    typer.echo(f"forecast: the provider's until {until}, then our own" if until else "forecast: our own")


def _show_fault(zone: str, provider: "Provider | None") -> None:
    if provider is None or provider.fault is None:
        return
    times = provider.failures_in_a_row
    often = "once" if times == 1 else f"{times} times in a row"
    answered = provider.last_success_at
    since = "and has never answered" if answered is None else f"since {format_short_time(answered)} UTC"
    typer.echo(replace_unprintable(f"{zone}: {provider.source} has failed {often} {since}: {provider.fault}"))


def _read_current_intensity(client: "Client", name: str) -> "Intensity | None":
    try:
        return client.intensity(name)
    except Problem as problem:
        if problem.status != 503:
            raise
        return None


def _format_intensity(intensity: "Intensity | None") -> str:
    if intensity is None:
        return "no intensity is known yet"
    how = measured_or_estimated(estimated=intensity.estimated)
    return (
        f"{format_number(intensity.gco2e_per_kwh)} gCO2e/kWh now, {how}, {intensity.source} ({intensity.step}), "
        f"{format_duration(intensity.age_seconds)} old, {intensity.signal}"
    )
