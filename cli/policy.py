"""`greentune policy`: checks a policy, and holds it against a recorded past. Offline: it needs no service."""

import json
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.policies.simulated import Quantiles, SimulationOut
from cli.errors import SettingError
from greencore.carbon import CarbonError, IntensitySeries, Reading
from greencore.carbon.trace_file import read_trace
from greencore.policy import BacktestError, Policy, PolicyError, backtest, parse_policy
from greencore.policy.outlooks import FORECASTS, ForecastKind

OPTIONS = {
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


def check(policy: str) -> None:
    """Show a policy with its defaults spelt out. Raises `SettingError` that names every field at fault."""
    Console().print_json(data=read_policy(policy).body())


def simulate(
    policy: str,
    trace: Path,
    *,
    zone: str | None,
    work_hours: float,
    epochs: int,
    deadline_hours: float | None,
    start: str | None,
    forecast: str,
    power_w: float,
    idle_power_w: float,
    as_json: bool,
) -> None:
    """Show what `policy` would have emitted on the intensities of `trace`, beside what it is compared with.

    `zone` is what the readings are called. Raises `SettingError` with the option that is to blame.
    """
    parsed = read_policy(policy)
    kind = _forecast(forecast)
    series = _series(trace, zone or DEFAULT_ZONE)
    try:
        result = backtest(
            parsed,
            series,
            start=None if start is None else _time(start),
            work_hours=work_hours,
            epochs=epochs,
            deadline_hours=deadline_hours,
            forecast=kind,
            power_w=power_w,
            idle_power_w=idle_power_w,
        )
    except BacktestError as error:
        raise SettingError(f"{OPTIONS[error.field]}: {error.message}") from error
    found = SimulationOut.of(
        result,
        series,
        policy=parsed,
        zone=zone,
        forecast=kind,
        deadline_hours=deadline_hours,
        power_w=power_w,
        idle_power_w=idle_power_w,
    )
    if as_json:
        typer.echo(found.model_dump_json(by_alias=True, indent=2))
    else:
        _show(Console(), found)


def read_policy(given: str) -> Policy:
    """The policy in a JSON file, or in JSON itself. Raises `SettingError` that names every field at fault."""
    inline = given.lstrip().startswith("{")
    where = "POLICY" if inline else f"POLICY: {given}"
    try:
        body = json.loads(given if inline else Path(given).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingError(f"{where}: there is no such file; a policy can also be given as JSON, in braces") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{where}: cannot be read as UTF-8 text ({error})") from error
    except (ValueError, RecursionError) as error:
        raise SettingError(f"{where}: not JSON: {error}") from error
    try:
        return parse_policy(body)
    except PolicyError as error:
        faults = "\n".join(f"{where}: {fault.field}: {fault.message}" for fault in error.errors)
        raise SettingError(faults) from error


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


def _show(console: Console, found: SimulationOut) -> None:
    console.print(_figures(found))
    if found.decisions:
        console.print(_decisions(found))
    basis = found.basis
    guessed = f", {basis.estimated_readings:,} of them estimates" if basis.estimated_readings else ""
    gaps = "" if basis.covered_share == 1 else f", {basis.covered_share:.1%} of that time covered"
    for line in (
        f"From {basis.readings:,} readings of {', '.join(basis.sources)}{guessed}, {basis.from_:%Y-%m-%d %H:%M} to "
        f"{basis.to:%Y-%m-%d %H:%M} UTC{gaps}. All figures are estimates:",
        *(f"  - {assumption}" for assumption in basis.assumptions),
    ):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _figures(found: SimulationOut) -> Table:
    of = f" in {escape(found.basis.zone)}" if found.basis.zone else ""
    spread = found.spread
    if spread is None:
        title = f"One run{of}, ended {found.finish:%Y-%m-%d %H:%M} UTC"
        headers = ["gCO2e, estimated", "this run"]
        emissions = less_work = moved = ""
    else:
        title = f"{found.starts:,} runs{of}, one from every full hour"
        headers = ["gCO2e, estimated", "mean", "5 % to 95 % of the starts"]
        emissions = _range(spread.emissions_g, ",.1f")
        less_work, moved = _range(spread.less_work_saving, ".1%"), _range(spread.moved_in_time_saving, ".1%")
    reached = "–" if found.oracle_share is None else f"{found.oracle_share:.1%}"
    parts = (
        (
            ("under the policy", f"{found.emissions_g:,.1f}", emissions),
            ("all the work (ρ = 1), begun at once", f"{found.baseline_g:,.1f}", ""),
            ("the same work, begun at once", f"{found.constant_g:,.1f}", ""),
            ("the same work in the cleanest hours", f"{found.oracle_g:,.1f}", ""),
        ),
        (
            ("saved by less work", f"{found.less_work_saving:.1%}", less_work),
            (
                "saved by moving it in time",
                f"{found.moved_in_time_saving:.1%}",
                moved,
            ),
            ("share of the oracle's saving by timing", reached, ""),
        ),
        (
            ("work done", f"{found.work_share:.1%}", ""),
            ("epochs run", f"{found.epochs_run:.4g}", ""),
            ("ended by the deadline", f"{found.on_time_share:.1%}", ""),
        ),
    )
    table = Table(title=title, title_justify="left")
    for place, header in enumerate(headers):
        table.add_column(header, justify="right" if place else "left")
    for rows in parts:
        for row in rows:
            table.add_row(*row[: len(headers)])
        table.add_section()
    return table


def _range(quantiles: Quantiles, form: str) -> str:
    return f"{quantiles.p05:{form}} to {quantiles.p95:{form}}"


def _decisions(found: SimulationOut) -> Table:
    table = Table("time (UTC)", "gCO2e/kWh", "does", "ρ", "why")
    for decision in found.decisions:
        table.add_row(
            f"{decision.time:%Y-%m-%d %H:%M}",
            f"{decision.intensity:.4g}",
            decision.action,
            "" if decision.rho is None else f"{decision.rho:.4g}",
            decision.reason,
        )
    return table
