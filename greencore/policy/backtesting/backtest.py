"""Backtests a policy on recorded intensities, and splits its saving into less work and moved in time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from greencore.arrays import Floats, Ints
from greencore.carbon.series import IntensitySeries
from greencore.policy.backtesting.simulation import (
    BacktestDecision,
    SimulatedRuns,
    Simulation,
    Workload,
    concatenate_runs,
    latest_finish_hours,
)
from greencore.policy.backtesting.slots import Slots
from greencore.policy.gate.forecasts import FORECASTS, ForecastKind, build_forecast
from greencore.policy.gate.hours import select_cheapest_slots
from greencore.policy.kinds.policy import Policy
from greencore.policy.rho.simulated_rules import build_rho_rule

NO_SAVING = 1e-9  # shares below are rounding errors
ROUNDING_HOURS = 1e-6
MAX_VALUES = 2_000_000  # slots or epochs ahead, summed over the runs of one simulation: bounds its memory
SPREAD = (0.05, 0.5, 0.95)


class BacktestError(ValueError):
    """A backtest argument is invalid; `.field` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Spread:
    """5 %, 50 % and 95 % quantiles over all starts."""

    emissions_g: tuple[float, float, float]
    less_work_saving: tuple[float, float, float]
    moved_in_time_saving: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """Emissions in gCO2e of a run under a policy and of its comparisons; means over the starts.

    `emissions_g` of the policy; `baseline_g` at ρ = 1 from the start without a pause; `constant_g` of the policy's
    FLOPs from the start without a pause; `oracle_g` of the policy's FLOPs in the cleanest hours before the deadline,
    in hindsight. `less_work_saving` = (baseline − constant) / baseline and `moved_in_time_saving` =
    (constant − emissions) / baseline add up to the whole saving; negative where more was emitted.

    `work_share` is the share of the baseline's FLOPs that was done, `epochs_run` the number of epochs (fewer than
    requested where a budget was used up), `on_time_share` the share of starts that met the deadline. A single start
    has `finish`, its end, and `decisions`, its actions in order; several starts have `spread` instead.
    """

    emissions_g: float
    baseline_g: float
    constant_g: float
    oracle_g: float
    less_work_saving: float
    moved_in_time_saving: float
    work_share: float
    epochs_run: float
    on_time_share: float
    starts: int
    finish: datetime | None
    decisions: tuple[BacktestDecision, ...]
    spread: Spread | None

    @property
    def oracle_share(self) -> float | None:
        """Share of the oracle's saving by timing that was reached; None where the oracle saves nothing."""
        possible = self.constant_g - self.oracle_g
        if possible <= self.constant_g * NO_SAVING:
            return None
        return _share(self.constant_g - self.emissions_g, possible)


def backtest(
    policy: Policy,
    series: IntensitySeries,
    *,
    start: datetime | Sequence[datetime] | None,
    work_hours: float,
    epochs: int,
    deadline_hours: float | None,
    forecast: ForecastKind = "own",
    power_w: float = 300.0,
    idle_power_w: float = 0.0,
    switch_hours: float = 0.0,
) -> BacktestResult:
    """Simulate the policy on the intensities of `series`, from one start, from several, or from every full hour (None).

    `work_hours` is the run's length at ρ = 1, in `epochs` equal epochs; an epoch at ρ takes that share of its length.
    `deadline_hours` counts from the start; by default the gate's `max_delay_hours` after the longest run that the
    policy allows. The machine draws `power_w` while it computes and `idle_power_w` while it waits or pauses.
    `switch_hours` is the cost of a checkpoint and a reload in hours of computing: it only damps the gate's changes.

    The gate plans again at every full hour. With "own" and "persistence" it knows only past hours, not the present
    one; with "perfect" all. ρ and the two thresholds use the intensity in force. Gaps in the series take the reading
    before them, readings shorter than 5 minutes are averaged. A simulation has no measured importance curve and no
    measured loss: budget and price use the default curve.

    Raises BacktestError naming the argument that is out of range, or where the series does not cover a start's window.
    """
    for field, value in (("work_hours", work_hours), ("deadline_hours", deadline_hours), ("power_w", power_w)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise BacktestError(field, f"given {value}: expected a finite number above 0")
    for field, value in (("idle_power_w", idle_power_w), ("switch_hours", switch_hours)):
        if not (math.isfinite(value) and value >= 0):
            raise BacktestError(field, f"given {value}: expected a finite number that is at least 0")
    if epochs < 1:
        raise BacktestError("epochs", f"given {epochs}: expected at least 1")
    if forecast not in FORECASTS:
        raise BacktestError("forecast", f"given {forecast!r}: expected one of {', '.join(FORECASTS)}")
    if not len(series):
        raise BacktestError("series", "it is empty: expected the readings of the simulated time")
    grid = Slots.from_series(series)
    work = Workload(work_hours, epochs, power_w / 1000, idle_power_w / 1000, switch_hours)
    deadline, longest = latest_finish_hours(policy, work_hours, deadline_hours)
    window = max(longest, work_hours)
    starts = _starts(grid, series, start, window)
    seen = build_forecast(forecast, grid, math.ceil(window) + 1)
    rule = build_rho_rule(
        policy, grid, seen, epoch_hours=work_hours / epochs, epoch_kwh=work_hours / epochs * work.power_kw
    )
    single = isinstance(start, datetime)
    at_a_time = max(1, MAX_VALUES // max(math.ceil(window / grid.step_hours), epochs))
    parts = []
    for first in range(0, len(starts), at_a_time):
        some = starts[first : first + at_a_time]
        simulation = Simulation(policy, grid, seen, rule, some, work, deadline_hours=deadline, record_decisions=single)
        runs = simulation.run()
        parts.append((runs, _oracle(grid, runs)))
    return _result(
        grid, [runs for runs, _ in parts], np.concatenate([oracle for _, oracle in parts]), work, single=single
    )


def _result(grid: Slots, parts: list[SimulatedRuns], oracle: Floats, work: Workload, *, single: bool) -> BacktestResult:
    runs = concatenate_runs(parts)
    baseline = _uninterrupted_emissions(grid, runs.starts, np.full(len(runs.starts), work.work_hours)) * work.power_kw
    constant = _uninterrupted_emissions(grid, runs.starts, runs.computing_hours) * work.power_kw
    oracle = oracle * work.power_kw
    less_work, moved = _shares(baseline - constant, baseline), _shares(constant - runs.emissions_g, baseline)
    means = [float(values.mean()) for values in (runs.emissions_g, baseline, constant, oracle)]
    emissions_g, baseline_g, constant_g, oracle_g = means
    return BacktestResult(
        emissions_g=emissions_g,
        baseline_g=baseline_g,
        constant_g=constant_g,
        oracle_g=oracle_g,
        less_work_saving=_share(baseline_g - constant_g, baseline_g),
        moved_in_time_saving=_share(constant_g - emissions_g, baseline_g),
        work_share=float(runs.computing_hours.mean()) / work.work_hours,
        epochs_run=float(runs.epochs_run.mean()),
        on_time_share=float((runs.finish_hours <= runs.deadline_hours + ROUNDING_HOURS).mean()),
        starts=len(runs.starts),
        finish=_finish(grid, runs) if single else None,
        decisions=_list_decisions(grid, runs) if single else (),
        spread=None
        if single
        else Spread(
            emissions_g=_quantiles(runs.emissions_g),
            less_work_saving=_quantiles(less_work),
            moved_in_time_saving=_quantiles(moved),
        ),
    )


def _starts(grid: Slots, series: IntensitySeries, start: datetime | Sequence[datetime] | None, hours: float) -> Floats:
    """Return the starts as grid positions; raise BacktestError where the series does not cover `hours` after one."""
    first, last = series.readings[0].start, series.readings[-1].end
    covered = f"it covers {first.isoformat()} to {last.isoformat()}"
    if start is None:
        earliest = math.ceil(grid.position(first) * grid.step_hours)
        latest = math.floor(grid.position(last) * grid.step_hours - hours + ROUNDING_HOURS)
        if latest < earliest:
            raise BacktestError("series", f"{covered}: expected at least the {hours:g} h of one run's window")
        return np.arange(earliest, latest + 1, dtype=np.float64) * grid.per_hour
    times = [start] if isinstance(start, datetime) else list(start)
    if not times:
        raise BacktestError("start", "given none: expected at least one time")
    for time in times:
        if time.utcoffset() is None:
            raise BacktestError("start", f"{time.isoformat()} has no offset from UTC: expected an aware time")
    # Converted to UTC, since a local day may have 23 hours.
    utc = [time.astimezone(UTC) for time in times]
    for time in utc:
        if time < first or time + timedelta(hours=hours - ROUNDING_HOURS) > last:
            raise BacktestError("start", f"{time.isoformat()} needs the series for {hours:g} h after it; {covered}")
    return np.array([grid.position(time) for time in utc])


def _uninterrupted_emissions(grid: Slots, starts: Floats, hours: Floats) -> Floats:
    """∫c dt in (gCO2e/kWh)·h over `hours` from each start."""
    integral = np.concatenate([[0.0], np.cumsum(grid.intensity)]) * grid.step_hours
    edges = np.arange(len(integral), dtype=np.float64)
    ends = np.interp(starts + hours / grid.step_hours, edges, integral)
    return ends - np.interp(starts, edges, integral)


def _oracle(grid: Slots, runs: SimulatedRuns) -> Floats:
    """∫c dt over the cleanest hours of each run's window, as many as the run computed."""
    windows = np.maximum(runs.deadline_hours, np.nan_to_num(runs.computing_hours))
    first = np.floor(runs.starts + 1e-9).astype(np.int64)
    count = int(np.ceil(windows.max() / grid.step_hours - 1e-9)) + 1
    place: Ints = first[:, None] + np.arange(count)
    begins = (place - runs.starts[:, None]) * grid.step_hours
    hours = np.minimum(begins + grid.step_hours, windows[:, None]) - np.maximum(begins, 0.0)
    hours = np.clip(hours, 0.0, None) * (place < len(grid.intensity))
    return select_cheapest_slots(grid.at(place), hours, np.ones_like(hours), runs.computing_hours).emissions


def _shares(saved: Floats, of: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(of > 0, saved / of, 0.0)
    return np.where(np.abs(shares) < NO_SAVING, 0.0, shares)


def _share(saved: float, of: float) -> float:
    return float(_shares(np.array([saved]), np.array([of]))[0])


def _quantiles(values: Floats) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, SPREAD).tolist()
    return low, middle, high


def _finish(grid: Slots, runs: SimulatedRuns) -> datetime:
    return grid.time(runs.starts[0]) + timedelta(hours=float(runs.finish_hours[0]))


def _list_decisions(grid: Slots, runs: SimulatedRuns) -> tuple[BacktestDecision, ...]:
    end = grid.position(_finish(grid, runs))
    intensity = float(grid.at(np.array(int(end + 1e-9))))
    late = runs.finish_hours[0] - runs.deadline_hours[0]
    why = f"{abs(late):.3g} h {'after' if late > 0 else 'before'} the deadline"
    if abs(late) <= ROUNDING_HOURS:
        why = "at the deadline"
    return (*runs.decisions, BacktestDecision(grid.time(end), intensity, "finish", None, why))
