"""Counterfactual emissions of a job: full fine-tuning at once, constant ρ at once, and the cleanest hours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from greencore.carbon.accounting.run_parts import RunPart, compute_shifted_emissions, price_scale, total_hours
from greencore.carbon.series import IntensitySeries, check_window
from greencore.clock import HOUR

CounterfactualName = Literal["full_now", "constant_now", "oracle"]


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """Estimated emissions of a job under another schedule, in gCO2e, with the assumption in words.

    `energy_kwh` (before PUE) would have been used in `hours` of running between `start` and `end`; the span is longer
    than `hours` where the run is interrupted. `covered_share` in [0, 1] is the share of the hours that readings cover.
    """

    name: CounterfactualName
    emissions_gco2e: float
    energy_kwh: float
    hours: float
    start: datetime
    end: datetime
    assumption: str
    covered_share: float
    estimated: Literal[True] = True


@dataclass(frozen=True, slots=True)
class CleanestMean:
    """Mean intensity over chosen hours in gCO2e/kWh, and the share of them, in [0, 1], that readings cover."""

    gco2e_per_kwh: float
    covered_share: float


def estimate_counterfactuals(
    parts: Sequence[RunPart],
    *,
    share: float,
    earliest_start: datetime,
    deadline: datetime | None,
    finished: datetime,
    series: IntensitySeries,
) -> list[Counterfactual]:
    """Return the three counterfactuals of a job whose result is the work of `parts`, in their order.

    `share` (above 0) is FLOPs spent / FLOPs at ρ = 1 in the epochs; the job could have started at `earliest_start` and
    ended at `finished`. "full_now" is ρ = 1 started at `earliest_start`: time and energy of the epochs scale with the
    FLOPs, those of other parts stay. "constant_now" is the same FLOPs started at `earliest_start`; "oracle" the same
    FLOPs in the cleanest hours before the deadline (`finished` without one), or in its running time where that is
    longer. Power is constant within each part, and over the whole of the oracle.

    `series` should be the one that the job was priced with. Where its readings have changed since, all three are
    scaled by (charged emissions) / (emissions by `series`), so that they stay comparable. Uncovered time is priced as
    in `IntensitySeries.mean`, and lowers `covered_share`. Raises NoReading where `series` is empty, ValueError where a
    figure is out of range, a time is naive, or `finished` is before `earliest_start`.
    """
    if not math.isfinite(share) or share <= 0:
        raise ValueError(f"share is {share}: expected a finite number greater than 0")
    check_window(earliest_start, finished)
    if deadline is not None and deadline.utcoffset() is None:
        raise ValueError(f"deadline is {deadline.isoformat()}: expected an aware time")
    now = f"started at {_format_minute(earliest_start)} without a pause"
    run_hours, energy_kwh = total_hours(parts), math.fsum(part.energy_kwh for part in parts)
    drawn_kwh = math.fsum(part.energy_kwh * part.pue for part in parts)
    scale = price_scale(parts, earliest_start=earliest_start, series=series)

    full_parts = [part.scale(1 / share) if part.in_epoch else part for part in parts]
    full = compute_shifted_emissions(full_parts, earliest_start, series)
    constant = compute_shifted_emissions(parts, earliest_start, series)
    full_hours, constant_end = total_hours(full_parts), earliest_start + timedelta(hours=run_hours)

    limit, what = (finished, "its end") if deadline is None else (deadline, "the deadline")
    oracle_end = max(limit, constant_end)
    oracle = cleanest_mean(series, earliest_start, oracle_end, run_hours)

    return [
        Counterfactual(
            name="full_now",
            emissions_gco2e=full.emissions_gco2e * scale,
            energy_kwh=math.fsum(part.energy_kwh for part in full_parts),
            hours=full_hours,
            start=earliest_start,
            end=earliest_start + timedelta(hours=full_hours),
            assumption=(
                f"every tensor trained (ρ = 1), {now}; time and energy of the epochs scale with the FLOPs, "
                f"by 1/{share:.3g}; those of loading and evaluating the model do not"
            ),
            covered_share=full.covered_share,
        ),
        Counterfactual(
            name="constant_now",
            emissions_gco2e=constant.emissions_gco2e * scale,
            energy_kwh=energy_kwh,
            hours=run_hours,
            start=earliest_start,
            end=constant_end,
            assumption=f"the same FLOPs at a constant ρ, {now}; the same time and energy, and no work done twice",
            covered_share=constant.covered_share,
        ),
        Counterfactual(
            name="oracle",
            emissions_gco2e=drawn_kwh * oracle.gco2e_per_kwh * scale,
            energy_kwh=energy_kwh,
            hours=run_hours,
            start=earliest_start,
            end=oracle_end,
            assumption=(
                f"the same FLOPs in the cleanest {run_hours:.3g} hours from {_format_minute(earliest_start)} to {what} "
                f"({_format_minute(oracle_end)}), all known beforehand; pauses are free, and the power is constant"
            ),
            covered_share=oracle.covered_share,
        ),
    ]


def cleanest_mean(series: IntensitySeries, start: datetime, end: datetime, hours: float) -> CleanestMean:
    """Return the mean intensity of the cleanest `hours` (above 0) within `[start, end]`, not necessarily contiguous.

    Exact for readings of any length. Uncovered time is priced as in `IntensitySeries.mean`, and taken after covered
    time of the same intensity. Raises NoReading where `series` is empty, ValueError where the window is shorter than
    `hours`, ends before its start, or a time is naive.
    """
    check_window(start, end)
    wanted = timedelta(hours=hours)
    if wanted <= timedelta(0) or wanted > end - start:
        raise ValueError(f"hours is {hours}: expected more than 0 and at most {(end - start) / HOUR:g}")
    left, covered, parts = wanted, timedelta(0), list[float]()
    pieces = sorted(
        (reading.gco2e_per_kwh, not covers, until - begin)
        for begin, until, reading, covers in series.pieces(start, end)
    )
    for gco2e_per_kwh, not_covered, length in pieces:
        taken = min(length, left)
        parts.append(gco2e_per_kwh * (taken / wanted))
        covered += timedelta(0) if not_covered else taken
        left -= taken
    return CleanestMean(math.fsum(parts), covered / wanted)


def _format_minute(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")
