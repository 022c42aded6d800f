"""The parts of a run that its result consists of, and their emissions at other times."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, get_args

from greencore.carbon.accounting.pricing import check_not_negative, check_pue
from greencore.carbon.errors import NoReading
from greencore.carbon.series import IntensitySeries

DelayCause = Literal["gate", "queue", "owner", "lost"]

DELAY_CAUSES: tuple[DelayCause, ...] = get_args(DelayCause)


@dataclass(frozen=True, slots=True)
class Delay:
    """Delay before a part of a run, by cause.

    `gate`: the job's gate was closed; `queue`: it waited for a worker; `owner`: its owner had paused it, or had not
    yet retried it after a failure or a cancellation; `lost`: time spent on work that had to be repeated.
    """

    gate: timedelta = timedelta(0)
    queue: timedelta = timedelta(0)
    owner: timedelta = timedelta(0)
    lost: timedelta = timedelta(0)

    def total(self, causes: Collection[DelayCause]) -> timedelta:
        """Return the sum of the delays of `causes`."""
        return sum((getattr(self, cause) for cause in causes), timedelta(0))


@dataclass(frozen=True, slots=True)
class RunPart:
    """A part of the work in a run's result, at constant power over `hours` (at least 0).

    `energy_kwh` (at least 0) is what the machine used, `pue` (at least 1) the kWh that its site drew for each of them,
    and `emissions_gco2e` what the job was charged. `in_epoch` is false for loading and evaluating the model, whose
    cost does not depend on ρ. `delay` is the time lost before the part began.
    """

    hours: float
    energy_kwh: float
    emissions_gco2e: float
    in_epoch: bool
    pue: float = 1.0
    delay: Delay = Delay()

    def __post_init__(self) -> None:
        for name in ("hours", "energy_kwh", "emissions_gco2e"):
            check_not_negative(name, getattr(self, name))
        check_pue(self.pue)

    def scale(self, factor: float) -> "RunPart":
        """Return the part with its hours and its energy multiplied by `factor`."""
        return replace(self, hours=self.hours * factor, energy_kwh=self.energy_kwh * factor)


@dataclass(frozen=True, slots=True)
class ShiftedEmissions:
    """Emissions of parts at given times in gCO2e, and the share of their hours, in [0, 1], that readings cover."""

    emissions_gco2e: float
    covered_share: float


def compute_shifted_emissions(
    parts: Sequence[RunPart],
    earliest_start: datetime,
    series: IntensitySeries,
    *,
    delayed_by: Collection[DelayCause] = (),
) -> ShiftedEmissions:
    """Price the parts run one after the other from `earliest_start`, delayed only by the causes in `delayed_by`.

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
    """Return the emissions that the parts were charged / their emissions by `series`; 1 where both are 0.

    Raises NoReading where they were charged, and `series` gives 0.
    """
    charged = math.fsum(part.emissions_gco2e for part in parts)
    by_series = compute_shifted_emissions(parts, earliest_start, series, delayed_by=DELAY_CAUSES).emissions_gco2e
    if by_series > 0:
        return charged / by_series
    if charged > 0:
        raise NoReading("the job was priced with an intensity above 0, but every known reading of its hours is 0")
    return 1.0


def total_hours(parts: Sequence[RunPart]) -> float:
    """Return the sum of the parts' hours."""
    return math.fsum(part.hours for part in parts)
