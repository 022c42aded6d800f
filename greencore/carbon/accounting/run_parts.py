"""The work that a job's result came of, part by part, and what it emits where it is done at other times."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from greencore.carbon.accounting.pricing import check_pue
from greencore.carbon.errors import NoReading
from greencore.carbon.series import IntensitySeries

DelayCause = Literal["gate", "queue", "owner", "lost"]

DELAY_CAUSES: tuple[DelayCause, ...] = ("gate", "queue", "owner", "lost")


@dataclass(frozen=True, slots=True)
class Delay:
    """Time between two parts of a run in which nothing of its result was done, by its cause.

    `gate`: the job's gate was closed; `queue`: it waited for a worker; `owner`: its owner had paused it, or it had
    failed or was cancelled until its owner retried it; `lost`: work was done that had to be done again.
    """

    gate: timedelta = timedelta(0)
    queue: timedelta = timedelta(0)
    owner: timedelta = timedelta(0)
    lost: timedelta = timedelta(0)

    def total(self, causes: Collection[DelayCause]) -> timedelta:
        """The time that these causes took together."""
        return sum((getattr(self, cause) for cause in causes), timedelta(0))


@dataclass(frozen=True, slots=True)
class RunPart:
    """A stretch of a run's work that is in its result, its energy drawn evenly over `hours` (at least 0).

    `energy_kwh` (at least 0) is what the machine used, `pue` (at least 1) what its site drew for each kWh of that, and
    `emissions_gco2e` what the job was charged for it. `in_epoch` is false for what lies outside of the epochs: loading
    and evaluating the model, which no FLOPs left out make less. `delay` is the time lost before it began.
    """

    hours: float
    energy_kwh: float
    emissions_gco2e: float
    in_epoch: bool
    pue: float = 1.0
    delay: Delay = Delay()

    def __post_init__(self) -> None:
        for name in ("hours", "energy_kwh", "emissions_gco2e"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} is {value}: expected a finite number that is at least 0")
        check_pue(self.pue)

    def scale(self, factor: float) -> "RunPart":
        """The same work, `factor` times as much of it."""
        return replace(self, hours=self.hours * factor, energy_kwh=self.energy_kwh * factor)


@dataclass(frozen=True, slots=True)
class ShiftedEmissions:
    """What parts emit at given times, in gCO2e, and the share of their hours, in [0, 1], that readings cover."""

    emissions_gco2e: float
    covered_share: float


def compute_shifted_emissions(
    parts: Sequence[RunPart],
    earliest_start: datetime,
    series: IntensitySeries,
    *,
    delayed_by: Collection[DelayCause] = (),
) -> ShiftedEmissions:
    """The parts one after the other from `earliest_start` on, with the delays that these causes took and no others.

    Raises NoReading where `series` is empty, ValueError where the time is naive.
    """
    emissions, covered, time = list[float](), list[float](), earliest_start
    for part in parts:
        time += part.delay.total(delayed_by)
        end = time + timedelta(hours=part.hours)
        intensity = series.mean(time, end)
        emissions.append(part.energy_kwh * part.pue * intensity.gco2e_per_kwh)
        covered.append(intensity.covered_share * part.hours)
        time = end
    hours = total_hours(parts)
    return ShiftedEmissions(math.fsum(emissions), math.fsum(covered) / hours if hours else 1.0)


def price_scale(parts: Sequence[RunPart], *, earliest_start: datetime, series: IntensitySeries) -> float:
    """What the parts were charged, as a multiple of what `series` has for the times at which they were done.

    1 where they were priced by it. Raises NoReading where they were charged for, and it has nothing but zeros.
    """
    charged = math.fsum(part.emissions_gco2e for part in parts)
    by_series = compute_shifted_emissions(parts, earliest_start, series, delayed_by=DELAY_CAUSES).emissions_gco2e
    if by_series > 0:
        return charged / by_series
    if charged > 0:
        raise NoReading("the intensity that the job was priced with is no longer what is known of its hours")
    return 1.0


def total_hours(parts: Sequence[RunPart]) -> float:
    """The hours of all parts together."""
    return math.fsum(part.hours for part in parts)
