"""`greentune zones`: each zone's carbon intensity now, and its forecast for the next day."""

import typer

from api.figures import UNKNOWN, format_duration, format_number
from cli.remote.figures import measured_or_estimated
from cli.remote.output import format_short_time, replace_unprintable, show_json, show_table
from cli.remote.sparkline import cleanest_hours, first_hour, hourly_means, sparkline
from greentune.client import Client
from greentune.errors import Problem
from greentune.models import Forecast, Intensity, Provider, Zone

HOURS = 24
# Each takes a request: the forecasts of further zones are shown for one zone at a time.
MAX_FORECASTS = 30
HEADERS = ("zone", "gCO2e/kWh", "kind", "age", "source", "workers", "next 24 h", "cleanest hours (UTC)")


def show_zones(client: Client, *, as_json: bool) -> None:
    """Show every zone's newest reading, its source, and the next hours."""
    zones = client.zones()
    forecasts = {zone.zone: client.forecast(zone.zone, hours=HOURS) for zone in zones[:MAX_FORECASTS]}
    if as_json:
        show_json([{"zone": zone, "forecast": forecasts.get(zone.zone)} for zone in zones])
        return
    show_table(HEADERS, (_row(zone, forecasts.get(zone.zone)) for zone in zones), empty="no zones")
    for zone in zones:
        _show_fault(zone.zone, zone.provider)


def show_zone(client: Client, name: str, *, as_json: bool) -> None:
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
    begin = first_hour(forecast.data)
    hours = hourly_means(forecast.data, begin, HOURS)
    known = [mean for mean in hours if mean is not None]
    span = (
        f"{format_number(min(known))} to {format_number(max(known))} gCO2e/kWh, from {format_short_time(begin)} UTC on"
    )
    typer.echo(f"next 24 h: {sparkline(hours)}  {span}")
    typer.echo(f"cleanest hours (UTC): {cleanest_hours(hours, begin)}")
    until = format_short_time(forecast.provider_until) if forecast.provider_until else None
    typer.echo(f"forecast: the provider's until {until}, then our own" if until else "forecast: our own")


def _row(zone: Zone, forecast: Forecast | None) -> tuple[str, ...]:
    newest = zone.newest
    bars, cleanest = UNKNOWN, UNKNOWN
    if forecast is not None and forecast.data:
        begin = first_hour(forecast.data)
        hours = hourly_means(forecast.data, begin, HOURS)
        bars, cleanest = sparkline(hours), cleanest_hours(hours, begin)
    return (
        zone.zone,
        format_number(None if newest is None else newest.gco2e_per_kwh),
        UNKNOWN if newest is None else measured_or_estimated(estimated=newest.estimated),
        format_duration(zone.age_seconds),
        UNKNOWN if newest is None else newest.source,
        str(zone.workers),
        bars,
        cleanest,
    )


def _show_fault(zone: str, provider: Provider | None) -> None:
    if provider is None or provider.fault is None:
        return
    times = provider.failures_in_a_row
    often = "once" if times == 1 else f"{times} times in a row"
    answered = provider.last_success_at
    since = "and has never answered" if answered is None else f"since {format_short_time(answered)} UTC"
    typer.echo(replace_unprintable(f"{zone}: {provider.source} has failed {often} {since}: {provider.fault}"))


def _read_current_intensity(client: Client, name: str) -> Intensity | None:
    try:
        return client.intensity(name)
    except Problem as problem:
        if problem.status != 503:
            raise
        return None


def _format_intensity(intensity: Intensity | None) -> str:
    if intensity is None:
        return "no intensity is known yet"
    how = measured_or_estimated(estimated=intensity.estimated)
    return (
        f"{format_number(intensity.gco2e_per_kwh)} gCO2e/kWh now, {how}, {intensity.source} ({intensity.step}), "
        f"{format_duration(intensity.age_seconds)} old, {intensity.signal}"
    )
