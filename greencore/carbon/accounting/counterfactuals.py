"""What a job would have emitted otherwise: with all the work at once, at an even pace, or with perfect knowledge."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal

from greencore.carbon.accounting.pricing import overlapping_readings
from greencore.carbon.accounting.run_parts import RunPart, compute_shifted_emissions, price_scale, total_hours
from greencore.carbon.errors import NoReading
from greencore.carbon.series import IntensitySeries
from greencore.carbon.source import check_window

CounterfactualName = Literal["full_now", "constant_now", "oracle"]


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """An estimate of what a job would have emitted in gCO2e, and what it assumes, in words.

    `energy_kwh` (before PUE) would have been used in `hours` of running between `start` and `end`, which lie further
    apart where the running would have been interrupted. `covered_share` is the share of the hours, in [0, 1], during
    which a reading was valid. `estimated` is always true: none of this happened.
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
    """A mean intensity in gCO2e/kWh over chosen hours, and the share of them, in [0, 1], that readings cover."""

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
    """Three estimates for a job whose result came of `parts`, in their order.

    `share` (above 0) is FLOPs spent / FLOPs at ρ = 1 in the epochs; `earliest_start` is when it could have begun at the
    earliest and `finished` when it ended. "full_now" is ρ = 1 begun at once, with the epochs' energy and time in
    proportion to the FLOPs, and what lies outside of the epochs as it was; "constant_now" the same FLOPs begun at once;
    "oracle" the same in the cleanest hours up to the deadline, or up to `finished` where there is none. A job that runs
    for longer than that is given the time that it runs. Each part draws its energy evenly, and the oracle all of it.

    `series` should be what the job itself was priced with. Where it says something else by now of the times at which
    the job ran, all three are scaled by what the job emitted / what that comes to, so that they can be compared. What
    it does not reach is priced by the rule of `IntensitySeries.mean`, and lowers `covered_share`. Raises NoReading
    where it is empty, ValueError where a figure is out of its range, a time is naive, or `finished` lies before
    `earliest_start`.
    """
    if not math.isfinite(share) or share <= 0:
        raise ValueError(f"share is {share}: expected a finite number greater than 0")
    check_window(earliest_start, finished)
    if deadline is not None and deadline.utcoffset() is None:
        raise ValueError(f"deadline is {deadline.isoformat()}: expected an aware time")
    now = f"begun at {_minute(earliest_start)} without a pause"
    run_hours, energy_kwh = total_hours(parts), math.fsum(part.energy_kwh for part in parts)
    drawn_kwh = math.fsum(part.energy_kwh * part.pue for part in parts)
    scale = price_scale(parts, earliest_start=earliest_start, series=series)

    grown = [part.scale(1 / share) if part.in_epoch else part for part in parts]
    full, constant = (
        compute_shifted_emissions(grown, earliest_start, series),
        compute_shifted_emissions(parts, earliest_start, series),
    )
    full_end, constant_end = (earliest_start + timedelta(hours=total_hours(each)) for each in (grown, parts))

    limit, what = (finished, "its end") if deadline is None else (deadline, "the deadline")
    oracle_end = max(limit, constant_end)
    oracle = cleanest_mean(series, earliest_start, oracle_end, run_hours)

    return [
        Counterfactual(
            name="full_now",
            emissions_gco2e=full.emissions_gco2e * scale,
            energy_kwh=math.fsum(part.energy_kwh for part in grown),
            hours=total_hours(grown),
            start=earliest_start,
            end=full_end,
            assumption=(
                f"every tensor trained (ρ = 1), {now}; time and energy of the epochs grow as the FLOPs, by "
                f"1/{share:.3g}, those of loading and evaluating the model stay"
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
                f"the same FLOPs in the cleanest {run_hours:.3g} hours from {_minute(earliest_start)} to {what} "
                f"({_minute(oracle_end)}), all known beforehand; pauses cost nothing, and the power is even"
            ),
            covered_share=oracle.covered_share,
        ),
    ]


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
    edges = {time for reading in overlapping_readings(series, start, end) for time in (reading.start, reading.end)}
    for begin, until in pairwise(sorted({start, end, *(time for time in edges if start < time < end)})):
        reading = series.latest_at(begin) or series.readings[0]
        yield reading.gco2e_per_kwh, series.at(begin) is None, until - begin


def _minute(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")
