"""`greentune policy check` and `simulate`: checks a policy, and holds it against a recorded past."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from api.policies.simulated import SimulationOut
from cli.errors import SettingError
from cli.local.policy_source import describe_policy_source, read_policy_json
from cli.local.simulation_view import show_simulation
from cli.remote.connection import open_client
from cli.remote.output import show_json
from cli.remote.policies import simulate
from greencore.carbon import CarbonError, IntensitySeries, Reading
from greencore.carbon.trace_file import read_trace
from greencore.policy import BacktestError, Policy, PolicyError, backtest, parse_policy
from greencore.policy.gate.forecasts import FORECASTS, ForecastKind
from greentune.models import Simulation

OPTION_NAMES = {
    "series": "--trace",
    "start": "--start",
    "work_hours": "--work-hours",
    "epochs": "--epochs",
    "deadline_hours": "--deadline-hours",
    "forecast": "--forecast",
    "power_w": "--power-w",
    "idle_power_w": "--idle-power-w",
}
DEFAULT_ZONE = "trace"
MAX_FAULTS = 100


@dataclass(frozen=True)
class SimulationOptions:
    """The run that is held against a past, as the options have it."""

    work_hours: float
    epochs: int
    deadline_hours: float | None
    start: str | None
    forecast: str
    power_w: float
    idle_power_w: float


def check(policy: str, *, as_json: bool) -> None:
    """Show a policy with its defaults spelt out. Raises `SettingError` that names every field at fault."""
    body = read_policy(policy).to_json()
    if as_json:
        show_json(body)
    else:
        Console().print_json(data=body)


def simulate_on_trace(
    policy: str, trace: Path | None, options: SimulationOptions, *, zone: str | None, as_json: bool
) -> None:
    """Show what `policy` would have emitted on the intensities of `trace`, beside what it is compared with.

    `zone` is what the readings are called. Raises `SettingError` with the option that is to blame.
    """
    if trace is None:
        raise SettingError("--trace: name a file of intensities, or a zone of the service with --zone-history")
    parsed = read_policy(policy)
    kind = _forecast(options.forecast)
    series = _series(trace, zone or DEFAULT_ZONE)
    try:
        result = backtest(
            parsed,
            series,
            start=None if options.start is None else _time(options.start),
            work_hours=options.work_hours,
            epochs=options.epochs,
            deadline_hours=options.deadline_hours,
            forecast=kind,
            power_w=options.power_w,
            idle_power_w=options.idle_power_w,
        )
    except BacktestError as error:
        raise SettingError(f"{OPTION_NAMES[error.field]}: {error.message}") from error
    found = SimulationOut.of(
        result,
        series,
        policy=parsed,
        zone=zone,
        forecast=kind,
        deadline_hours=options.deadline_hours,
        power_w=options.power_w,
        idle_power_w=options.idle_power_w,
    )
    _show(Simulation.model_validate(found.model_dump(by_alias=True)), as_json=as_json)


def simulate_on_zone(
    policy: str,
    zone: str,
    options: SimulationOptions,
    *,
    trace: Path | None,
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """The same on what a service has stored of a zone, of a policy that is given or that it knows by name."""
    if trace is not None:
        raise SettingError("--trace: a trace and --zone-history exclude each other: give one of them")
    with open_client(url, key) as client:
        found = simulate(
            client,
            policy,
            zone=zone,
            start=None if options.start is None else _time(options.start),
            work_hours=options.work_hours,
            epochs=options.epochs,
            deadline_hours=options.deadline_hours,
            forecast=_forecast(options.forecast),
            power_w=options.power_w,
            idle_power_w=options.idle_power_w,
        )
    _show(found, as_json=as_json)


def read_policy(given: str) -> Policy:
    """The policy in a JSON file, or in JSON itself. Raises `SettingError` that names every field at fault."""
    body = read_policy_json(given, "POLICY")
    try:
        return parse_policy(body)
    except PolicyError as error:
        where = describe_policy_source(given, "POLICY")
        lines = [f"{where}: {fault.field}: {fault.message}" for fault in error.errors[:MAX_FAULTS]]
        if len(error.errors) > MAX_FAULTS:
            lines.append(f"{where}: and {len(error.errors) - MAX_FAULTS} more faults")
        raise SettingError("\n".join(lines)) from error


def _series(trace: Path, zone: str) -> IntensitySeries:
    try:
        recorded = read_trace(trace)
    except CarbonError as error:
        raise SettingError(f"--trace: {error}") from error
    source = f"trace ({recorded.label or trace.name})"
    return IntensitySeries(
        Reading(
            zone=zone,
            start=row.start,
            end=row.end,
            gco2e_per_kwh=row.gco2e_per_kwh,
            source=source,
            emission_factors=recorded.emission_factors,
            estimated=row.estimated,
            fetched_at=row.end,
        )
        for row in recorded.rows
    )


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.utcoffset() is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise SettingError(
            f"--start: {text!r} is no time: expected ISO 8601, such as 2026-11-23T10:00:00Z (UTC without an offset)"
        ) from None


def _forecast(name: str) -> ForecastKind:
    for kind in FORECASTS:
        if kind == name:
            return kind
    raise SettingError(f"--forecast: {name!r} is not one of {', '.join(FORECASTS)}")


def _show(found: Simulation, *, as_json: bool) -> None:
    if as_json:
        show_json(found)
    else:
        show_simulation(Console(), found)
