"""Backtests every kind of policy under every gate on a year of two grids: emissions, and the two savings."""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.carbon.policy_tables import FULL as FULL_NAME
from benchmarks.carbon.policy_tables import find_row
from benchmarks.report import publish
from greencore.carbon import IntensitySeries
from greencore.carbon.trace_file import read_trace
from greencore.policy import BacktestResult, backtest, parse_policy
from greencore.policy.gate.forecasts import ForecastKind

WORK_HOURS = 17.0
EPOCHS = 17
DEADLINE_HOURS = 34.0
POWER_W = 300.0

TRACES = {"ES 2022": "ES_2022_hourly.csv", "NO 2023": "NO_2023_hourly.csv"}

FULL = {"kind": "constant", "rho": 1.0}
RANGE = {"rho_max": 1.0, "rho_min": 0.5}
POLICIES: dict[str, list[dict[str, Any]]] = {
    "ES 2022": [
        FULL,
        {"kind": "constant", "rho": 0.7},
        {"kind": "steps", "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 250, "rho": 0.7}, {"rho": 0.5}]},
        {"kind": "linear", "clean": 100, "dirty": 330, **RANGE},
        {"kind": "percentile", "window_hours": 168, "gamma": 1.0, **RANGE},
        {"kind": "budget", "budget_gco2e": 750, **RANGE},
        {"kind": "price", "gco2e_per_loss": 130, **RANGE},
    ],
    "NO 2023": [
        FULL,
        {"kind": "constant", "rho": 0.7},
        {"kind": "steps", "steps": [{"up_to": 30, "rho": 1.0}, {"up_to": 40, "rho": 0.7}, {"rho": 0.5}]},
        {"kind": "linear", "clean": 25, "dirty": 55, **RANGE},
        {"kind": "percentile", "window_hours": 168, "gamma": 1.0, **RANGE},
        {"kind": "budget", "budget_gco2e": 115, **RANGE},
        {"kind": "price", "gco2e_per_loss": 20, **RANGE},
    ],
}
"""Policies of each grid: bounds near the 5 % and 95 % quantiles of its hours, a budget and a price that leave about two
thirds of the work; ρ from 0.5, above the floor of every model measured so far."""

GATED: tuple[tuple[str, ForecastKind], ...] = (
    ("none", "own"),
    ("defer", "own"),
    ("pause", "own"),
    ("pause", "persistence"),
    ("pause", "perfect"),
)

CLOSE_TO_ORACLE = 1.02
MIN_SHARE = 0.70
AIMED_SHARE = 0.85
EPSILON = 1e-9
MAX_SECONDS = 60.0

ATTRIBUTION = "Data © Electricity Maps, ODbL 1.0 (opendatacommons.org/licenses/odbl), life cycle, hourly"

COLUMNS = (
    "grid",
    "policy",
    "gate",
    "min_saving",
    "forecast",
    "emissions_g",
    "baseline_g",
    "constant_g",
    "oracle_g",
    "less_work",
    "moved_in_time",
    "oracle_share",
    "epochs_run",
    "on_time",
)


def main() -> int:
    """Measure, print and write; return 1 where a check fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"a folder with {' and '.join(TRACES.values())}")
    folder: Path = parser.parse_args().data
    missing = [name for name in TRACES.values() if not (folder / name).is_file()]
    if missing:
        parser.error(f"{folder} holds no {' and no '.join(missing)}")
    series = {grid: IntensitySeries(read_trace(folder / file, grid)) for grid, file in TRACES.items()}
    rows = [row for grid, known in series.items() for row in _rows(grid, known)]
    return publish(
        "policies",
        f"Policies on two grids: {WORK_HOURS:g} h of work in {EPOCHS} epochs, {DEADLINE_HOURS:g} h to do it",
        rows,
        columns=COLUMNS,
        notes=[
            f"{ATTRIBUTION}; each hour from 1 March on whose window is within the year is a start:"
            f" {rows[0]['starts']} a grid, means over all of them; {POWER_W:g} W while computing, none while waiting",
            "less work, moved in time: shares of the baseline (ρ = 1 at once); together the whole saving. constant: the"
            " same FLOPs at once; oracle: the same FLOPs in the cleanest hours, in hindsight. oracle_share:"
            " (constant − emissions) / (constant − oracle)",
            "nothing is smoothed; the gate plans again each hour, with own and persistence without knowing even the"
            " present hour; budget and price with the default curve, and a loss of 0.5 an epoch",
            *(_parameters(grid) for grid in TRACES),
            *(_against_oracle(rows, grid) for grid in TRACES),
            *(_against_aim(rows, grid) for grid in TRACES),
            f"the slowest of these, all starts of a year: {max(row['seconds'] for row in rows):.2g} s",
        ],
        checks=_checks(rows),
        options="--data FOLDER",
    )


def _rows(grid: str, series: IntensitySeries) -> Iterator[dict[str, Any]]:
    starts = _starts(series)
    for body, (mode, forecast) in product(POLICIES[grid], GATED):
        yield _row(grid, series, starts, body, {"mode": mode}, forecast)
        if body is FULL and mode == "pause":
            yield _row(grid, series, starts, body, {"mode": mode, "min_saving": 0.0}, forecast)


def _row(
    grid: str,
    series: IntensitySeries,
    starts: list[datetime],
    body: Mapping[str, Any],
    gate: Mapping[str, Any],
    forecast: ForecastKind,
) -> dict[str, Any]:
    policy = parse_policy({**body, "gate": gate})
    began = time.perf_counter()
    result = backtest(
        policy,
        series,
        start=starts,
        work_hours=WORK_HOURS,
        epochs=EPOCHS,
        deadline_hours=DEADLINE_HOURS,
        forecast=forecast,
        power_w=POWER_W,
    )
    seconds = time.perf_counter() - began
    return {
        "grid": grid,
        "policy": FULL_NAME if body is FULL else body["kind"],
        "gate": policy.gate.mode,
        "min_saving": policy.gate.min_saving,
        "forecast": forecast,
        **_figures(result),
        "body": dict(body),
        "seconds": seconds,
    }


def _figures(result: BacktestResult) -> dict[str, Any]:
    assert result.spread is not None
    return {
        "emissions_g": result.emissions_g,
        "baseline_g": result.baseline_g,
        "constant_g": result.constant_g,
        "oracle_g": result.oracle_g,
        "less_work": result.less_work_saving,
        "moved_in_time": result.moved_in_time_saving,
        "oracle_share": result.oracle_share,
        "work_share": result.work_share,
        "epochs_run": result.epochs_run,
        "on_time": result.on_time_share,
        "starts": result.starts,
        "emissions_g_quantiles": list(result.spread.emissions_g),
        "moved_in_time_quantiles": list(result.spread.moved_in_time_saving),
    }


def _checks(rows: list[dict[str, Any]]) -> dict[str, bool]:
    paused = [row for row in rows if row["policy"] == FULL_NAME and row["gate"] == "pause"]
    perfect = [row["emissions_g"] / row["oracle_g"] for row in paused if row["forecast"] == "perfect"]
    own = [row["oracle_share"] for row in paused if row["forecast"] == "own"]
    ungated = [row for row in rows if row["gate"] == "none"]
    budgets = [row for row in rows if row["policy"] == "budget"]
    return {
        "paused on a perfect forecast at ρ = 1, at most 2 % over the oracle on both grids": max(perfect)
        <= CLOSE_TO_ORACLE,
        f"paused on our own forecast at ρ = 1, at least {MIN_SHARE:.0%} of the oracle's saving on both grids": min(own)
        >= MIN_SHARE,
        "without a gate nothing is moved in time, whatever sets ρ": all(
            max(map(abs, [row["moved_in_time"], *row["moved_in_time_quantiles"]])) < EPSILON for row in ungated
        ),
        "every start meets its deadline": all(row["on_time"] == 1 for row in rows),
        "the mean under a budget is within it": all(
            row["emissions_g"] <= row["body"]["budget_gco2e"] for row in budgets
        ),
        f"a year of starts in under {MAX_SECONDS:g} s": max(row["seconds"] for row in rows) < MAX_SECONDS,
    }


def _parameters(grid: str) -> str:
    return f"{grid}: " + "; ".join(f"{body['kind']} {_arguments(body)}" for body in POLICIES[grid] if body is not FULL)


def _arguments(body: Mapping[str, Any]) -> str:
    if body["kind"] == "steps":
        return ", ".join(
            f"{step['rho']:g} up to {step['up_to']:g}" if "up_to" in step else f"else {step['rho']:g}"
            for step in body["steps"]
        )
    return ", ".join(f"{name} {value:g}" for name, value in body.items() if name != "kind")


def _against_oracle(rows: list[dict[str, Any]], grid: str) -> str:
    default, zero = (_paused(rows, grid, "perfect", min_saving) for min_saving in (0.05, 0.0))
    over = [row["emissions_g"] / row["oracle_g"] - 1 for row in (default, zero)]
    return (
        f"{grid}, pause on a perfect forecast at ρ = 1: {over[0]:.2%} over the oracle with the default min_saving of"
        f" {default['min_saving']:g}, {abs(over[1]):.2%} with 0"
    )


def _against_aim(rows: list[dict[str, Any]], grid: str) -> str:
    shares = [_paused(rows, grid, "own", min_saving)["oracle_share"] for min_saving in (0.05, 0.0)]
    missed = (AIMED_SHARE - shares[0]) * 100
    return (
        f"{grid}, pause on our own forecast at ρ = 1: {shares[0]:.1%} of the oracle's saving with the default"
        f" min_saving, {shares[1]:.1%} with 0; the aim of {AIMED_SHARE:.0%} is "
        + (f"missed by {missed:.1f} points" if missed > 0 else "reached")
    )


def _paused(rows: list[dict[str, Any]], grid: str, forecast: str, min_saving: float) -> dict[str, Any]:
    row: dict[str, Any] = find_row(rows, grid, FULL_NAME, "pause", forecast, min_saving)
    return row


def _starts(series: IntensitySeries) -> list[datetime]:
    """List each hour from 1 March of the series' year up to the last whose window is within it."""
    first = datetime(series.readings[0].start.year, 3, 1, tzinfo=UTC)
    room = series.readings[-1].end - timedelta(hours=DEADLINE_HOURS) - first
    return [first + timedelta(hours=hour) for hour in range(room // timedelta(hours=1) + 1)]


if __name__ == "__main__":
    sys.exit(main())
