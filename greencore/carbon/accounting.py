"""Prices metered energy with the intensity of the time in which it was used."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from greencore.carbon.series import IntensitySeries, Signal


class Metered(Protocol):
    """Energy in kWh used between two UTC times; `greencore.energy.EnergyInterval` is one."""

    @property
    def start(self) -> datetime:
        """When the interval begins."""

    @property
    def end(self) -> datetime:
        """When the interval ends."""

    @property
    def energy_kwh(self) -> float:
        """Energy used within the interval, in kWh; at least 0."""


@dataclass(frozen=True, slots=True)
class PricedInterval:
    """One interval's energy in kWh, the intensity that applied in gCO2e/kWh, and the emissions in gCO2e.

    `covered_share`, `estimated`, `sources` and `signal` are those of the intensity: see `WeightedIntensity`.
    """

    start: datetime
    end: datetime
    energy_kwh: float
    intensity_gco2e_per_kwh: float
    emissions_gco2e: float
    covered_share: float
    estimated: bool
    sources: tuple[str, ...]
    signal: Signal


def price(interval: Metered, series: IntensitySeries) -> PricedInterval:
    """Emissions of one interval: E · ∫c(t)dt / (end − start), as if its power were constant.

    The shorter the interval, the less that assumption matters: at most a minute where a series has hourly
    readings. Raises NoReading where `series` is empty, ValueError where the energy is negative or not finite.
    """
    if not math.isfinite(interval.energy_kwh) or interval.energy_kwh < 0:
        raise ValueError(f"energy_kwh is {interval.energy_kwh}: expected a finite number that is at least 0")
    intensity = series.mean(interval.start, interval.end)
    return PricedInterval(
        start=interval.start,
        end=interval.end,
        energy_kwh=interval.energy_kwh,
        intensity_gco2e_per_kwh=intensity.gco2e_per_kwh,
        emissions_gco2e=interval.energy_kwh * intensity.gco2e_per_kwh,
        covered_share=intensity.covered_share,
        estimated=intensity.estimated,
        sources=intensity.sources,
        signal=intensity.signal,
    )
