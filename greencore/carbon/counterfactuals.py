"""What a job would have emitted otherwise: with all the work at once, at an even pace, or with perfect knowledge."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal

from greencore.carbon.accounting import check_pue, touching
from greencore.carbon.errors import NoReading
from greencore.carbon.series import IntensitySeries
from greencore.carbon.source import check_window

Name = Literal["full_now", "constant_now", "oracle"]


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """An estimate of what a job would have emitted in gCO2e, and what it assumes, in words.

    `energy_kwh` (before PUE) would have been used in `hours` of running between `start` and `end`, which lie further
    apart where the running would have been interrupted. `covered_share` is the share of the hours, in [0, 1], during
    which a reading was valid. `estimated` is always true: none of this happened.
    """

    name: Name
    emissions_gco2e: float
    energy_kwh: float
    hours: float
    start: datetime
    end: datetime
    assumption: str
    covered_share: float
    estimated: Literal[True] = True


@dataclass(frozen=True, slots=True)
class Savings:
    """Two savings as shares of what the full job would have emitted; below 0 where more was emitted.

    `less_work` is due to the FLOPs left out, `moved_in_time` to when the rest was run; together they are the whole
    saving.
    """

    less_work: float
    moved_in_time: float


@dataclass(frozen=True, slots=True)
class CleanestMean:
    """A mean intensity in gCO2e/kWh over chosen hours, and the share of them, in [0, 1], that readings cover."""

    gco2e_per_kwh: float
    covered_share: float


def counterfactuals(
    *,
    energy_kwh: float,
    run_hours: float,
    share: float,
    could_start: datetime,
    deadline: datetime | None,
    finished: datetime,
    series: IntensitySeries,
    pue: float = 1.0,
) -> list[Counterfactual]:
    """Three estimates for a job that used `energy_kwh` (at least 0, before PUE) in `run_hours` (above 0) of running.

    `share` in (0, 1] is FLOPs spent / FLOPs at ρ = 1; `could_start` is when it could have begun at the earliest and
    `finished` when it ended. "full_now" is ρ = 1 begun at once, with energy and time in proportion to the FLOPs;
    "constant_now" the same FLOPs at a constant ρ begun at once; "oracle" the same in the cleanest hours up to the
    deadline, or up to `finished` where there is none. A job that runs for longer than that is given the time that it
    runs. All draw their energy evenly. `series` should be what the job itself was priced with; what it does not reach
    is priced by the rule of `IntensitySeries.mean`, and lowers `covered_share`. Raises NoReading where it is empty,
    ValueError where a figure is out of its range, a time is naive, or `finished` lies before `could_start`.
    """
    _check(energy_kwh, run_hours, share)
    check_pue(pue)
    check_window(could_start, finished)
    if deadline is not None and deadline.utcoffset() is None:
        raise ValueError(f"deadline is {deadline.isoformat()}: expected an aware time")
    now = f"begun at {_minute(could_start)} without a pause"

    full_hours, full_kwh = run_hours / share, energy_kwh / share
    full_end = could_start + timedelta(hours=full_hours)
    full = series.mean(could_start, full_end)

    constant_end = could_start + timedelta(hours=run_hours)
    constant = series.mean(could_start, constant_end)

    limit, what = (finished, "its end") if deadline is None else (deadline, "the deadline")
    oracle_end = max(limit, constant_end)
    oracle = cleanest_mean(series, could_start, oracle_end, run_hours)

    return [
        Counterfactual(
            name="full_now",
            emissions_gco2e=full_kwh * pue * full.gco2e_per_kwh,
            energy_kwh=full_kwh,
            hours=full_hours,
            start=could_start,
            end=full_end,
            assumption=(
                f"every tensor trained (ρ = 1), {now}; time and energy grow as the FLOPs, by 1/{share:.3g}, and the "
                "power is even"
            ),
            covered_share=full.covered_share,
        ),
        Counterfactual(
            name="constant_now",
            emissions_gco2e=energy_kwh * pue * constant.gco2e_per_kwh,
            energy_kwh=energy_kwh,
            hours=run_hours,
            start=could_start,
            end=constant_end,
            assumption=f"the same FLOPs at a constant ρ, {now}; the same time and energy, and the power is even",
            covered_share=constant.covered_share,
        ),
        Counterfactual(
            name="oracle",
            emissions_gco2e=energy_kwh * pue * oracle.gco2e_per_kwh,
            energy_kwh=energy_kwh,
            hours=run_hours,
            start=could_start,
            end=oracle_end,
            assumption=(
                f"the same FLOPs in the cleanest {run_hours:.3g} hours from {_minute(could_start)} to {what} "
                f"({_minute(oracle_end)}), all known beforehand; pauses cost nothing, and the power is even"
            ),
            covered_share=oracle.covered_share,
        ),
    ]


def savings(*, full_gco2e: float, constant_gco2e: float, actual_gco2e: float) -> Savings:
    """less_work = (full − constant) / full, moved_in_time = (constant − actual) / full; both 0 where full is 0.

    `full_gco2e` and `constant_gco2e` are the emissions of "full_now" and "constant_now"; each is at least 0.
    """
    for name, emissions in (
        ("full_gco2e", full_gco2e),
        ("constant_gco2e", constant_gco2e),
        ("actual_gco2e", actual_gco2e),
    ):
        if not math.isfinite(emissions) or emissions < 0:
            raise ValueError(f"{name} is {emissions}: expected a finite number that is at least 0")
    if full_gco2e == 0:
        return Savings(0.0, 0.0)
    return Savings(
        less_work=(full_gco2e - constant_gco2e) / full_gco2e,
        moved_in_time=(constant_gco2e - actual_gco2e) / full_gco2e,
    )


def cleanest_mean(series: IntensitySeries, start: datetime, end: datetime, hours: float) -> CleanestMean:
    """The mean intensity of the cleanest `hours` (above 0) within `[start, end]`, whichever they are.

    Exact, whatever the readings' lengths; parts that no reading covers are priced by the rule of
    `IntensitySeries.mean`, and taken after those of the same intensity that one covers. Raises NoReading where
    `series` is empty, ValueError where the window is shorter than `hours`, ends before its start, or a time is naive.
    """
    check_window(start, end)
    wanted = timedelta(hours=hours)
    if wanted <= timedelta(0) or wanted > end - start:
        raise ValueError(f"hours is {hours}: expected more than 0 and at most {(end - start) / timedelta(hours=1):g}")
    if not series.readings:
        raise NoReading(f"an empty series has no clean hours from {start.isoformat()} to {end.isoformat()}")
    left, covered, parts = wanted, timedelta(0), list[float]()
    for gco2e_per_kwh, not_covered, length in sorted(_pieces(series, start, end)):
        taken = min(length, left)
        parts.append(gco2e_per_kwh * (taken / wanted))
        covered += timedelta(0) if not_covered else taken
        left -= taken
    return CleanestMean(math.fsum(parts), covered / wanted)


def _pieces(series: IntensitySeries, start: datetime, end: datetime) -> Iterator[tuple[float, bool, timedelta]]:
    """Cuts `[start, end]` into (intensity in gCO2e/kWh, whether no reading covers it, length)."""
    edges = {time for reading in touching(series, start, end) for time in (reading.start, reading.end)}
    for begin, until in pairwise(sorted({start, end, *(time for time in edges if start < time < end)})):
        reading = series.latest_at(begin) or series.readings[0]
        yield reading.gco2e_per_kwh, series.at(begin) is None, until - begin


def _minute(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")


def _check(energy_kwh: float, run_hours: float, share: float) -> None:
    if not math.isfinite(energy_kwh) or energy_kwh < 0:
        raise ValueError(f"energy_kwh is {energy_kwh}: expected a finite number that is at least 0")
    if not math.isfinite(run_hours) or run_hours <= 0:
        raise ValueError(f"run_hours is {run_hours}: expected a finite number greater than 0")
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}: expected more than 0 and at most 1")
