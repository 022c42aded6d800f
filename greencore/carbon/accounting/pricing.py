"""Prices metered energy with the intensity of the time in which it was used."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Protocol

from greencore.carbon.series import IntensitySeries, Reading, Signal

TimeSpan = tuple[datetime, datetime]
"""A time from a start to an end, both UTC."""

ROUNDING = 1e-9  # as a share: sums of the same energies may differ by it

TRACKER_TOLERANCE = 0.05
"""The largest `tracker_difference`, either way, that is not worth a warning."""


class TimeInterval(Protocol):
    """Anything that lasts from one UTC time to another."""

    @property
    def start(self) -> datetime:
        """When it begins."""

    @property
    def end(self) -> datetime:
        """When it ends; not before `start`."""


class MeteredEnergy(TimeInterval, Protocol):
    """Energy in kWh used between two UTC times; `greencore.energy.EnergyInterval` is one."""

    @property
    def energy_kwh(self) -> float:
        """Energy used within the interval, in kWh; at least 0."""


@dataclass(frozen=True, slots=True)
class PricedInterval:
    """One interval's metered energy in kWh, the intensity that applied in gCO2e/kWh, and the emissions in gCO2e.

    Emissions are energy · `pue` · intensity: `energy_kwh` is what the machine used, `pue` (at least 1) what its
    site draws for each kWh of that. Where no intensity is known, intensity, emissions and signal are None, the
    sources empty, `covered_share` 0 and `estimated` true. `covered_share`, `estimated`, `sources` and `signal` are
    otherwise those of the intensity: see `WeightedIntensity`.
    """

    start: datetime
    end: datetime
    energy_kwh: float
    intensity_gco2e_per_kwh: float | None
    emissions_gco2e: float | None
    covered_share: float
    estimated: bool
    sources: tuple[str, ...]
    signal: Signal | None
    pue: float = 1.0


def price_interval(interval: MeteredEnergy, series: IntensitySeries, *, pue: float = 1.0) -> PricedInterval:
    """Emissions of one interval as a whole: E · PUE · ∫c(t)dt / (end − start), as if its power were constant.

    Parts that no reading covers take the nearest one's intensity, as `IntensitySeries.mean` says; `price_by_reading`
    leaves them unpriced. Raises NoReading where `series` is empty, ValueError where the energy is negative or not
    finite, or `pue` below 1.
    """
    _check(interval, pue)
    intensity = series.mean(interval.start, interval.end)
    return PricedInterval(
        start=interval.start,
        end=interval.end,
        energy_kwh=interval.energy_kwh,
        intensity_gco2e_per_kwh=intensity.gco2e_per_kwh,
        emissions_gco2e=interval.energy_kwh * pue * intensity.gco2e_per_kwh,
        covered_share=intensity.covered_share,
        estimated=intensity.estimated,
        sources=intensity.sources,
        signal=intensity.signal,
        pue=pue,
    )


def price_by_reading(interval: MeteredEnergy, series: IntensitySeries, *, pue: float = 1.0) -> list[PricedInterval]:
    """The interval, cut where a reading begins or ends, each piece with the intensity of its own time.

    The pieces follow one another without a gap and share out the energy by their length, as if its power were
    constant; their energies add up to the interval's. A piece that no reading covers has no price (intensity and
    emissions are None) and keeps its energy: what stands in for a missing reading is the fallback chain's to say, by
    putting it into `series`. An interval of no length is one piece. Raises ValueError where the energy is negative or
    not finite, or `pue` below 1.
    """
    _check(interval, pue)
    start, end = interval.start, interval.end
    if start == end:
        return [_piece(start, end, interval.energy_kwh, series.at(start), pue)]
    edges = {time for reading in overlapping_readings(series, start, end) for time in (reading.start, reading.end)}
    cuts = sorted({start, end, *(time for time in edges if start < time < end)})
    return [
        _piece(begin, until, interval.energy_kwh * ((until - begin) / (end - start)), series.at(begin), pue)
        for begin, until in pairwise(cuts)
    ]


def is_settled(piece: TimeInterval, series: IntensitySeries) -> bool:
    """Whether measured readings cover the whole of `piece`, so that its price will not change any more.

    `series` is the provider's history; a reading that is estimated does not count. A piece of no length is settled
    where a measured reading covers its instant.
    """
    if piece.start == piece.end:
        reading = series.at(piece.start)
        return reading is not None and not reading.estimated
    reached = piece.start
    for reading in overlapping_readings(series, piece.start, piece.end):
        if reading.estimated or reading.start > reached:
            return False
        reached = reading.end
    return reached >= piece.end


def tracker_difference(ours_kwh: float, tracker_kwh: float | None) -> float | None:
    """How much more energy our intervals hold than CodeCarbon's own total, as a share of the larger of the two.

    In [-1, 1]; None where the tracker gave no total, or both are 0. Energies are compared, before PUE, not emissions:
    CodeCarbon prices all of a run at one intensity, so that emissions differ by design, while no pricing can explain
    a difference of energies. It says that intervals were lost, or counted twice, on their way from the meter. Both
    figures must be of the same runs of the meter: a run that was killed leaves intervals and no total. Raises
    ValueError where a figure is negative or not finite.
    """
    for name, energy in (("ours_kwh", ours_kwh), ("tracker_kwh", tracker_kwh)):
        if energy is not None:
            _check_energy(name, energy)
    if tracker_kwh is None or (larger := max(ours_kwh, tracker_kwh)) == 0:
        return None
    return (ours_kwh - tracker_kwh) / larger


def overlapping_readings(series: IntensitySeries, start: datetime, end: datetime) -> tuple[Reading, ...]:
    """The readings that are valid at any time of `[start, end)`, whole, earliest first."""
    readings = series.readings
    first = bisect_right(readings, start, key=lambda reading: reading.end)
    return readings[first : max(first, bisect_left(readings, end, key=lambda reading: reading.start))]


def covered_spans(readings: Iterable[Reading]) -> list[TimeSpan]:
    """The stretches of time that `readings`, sorted by time and without overlaps, cover without a gap."""
    stretches: list[TimeSpan] = []
    for reading in readings:
        start = reading.start
        if stretches and stretches[-1][1] == start:
            start = stretches.pop()[0]
        stretches.append((start, reading.end))
    return stretches


def known_emissions(emissions_gco2e: float, *, energy_kwh: float, unpriced_kwh: float) -> float | None:
    """What is known of the emissions of energy of which `unpriced_kwh` has no price: None where that is all of it."""
    return None if unpriced_kwh > 0 and unpriced_kwh >= energy_kwh * (1 - ROUNDING) else emissions_gco2e


def check_pue(pue: float) -> None:
    """Raises ValueError where a power usage effectiveness is not a finite number that is at least 1."""
    if not math.isfinite(pue) or pue < 1:
        raise ValueError(f"pue is {pue}: expected a finite number that is at least 1")


def _piece(start: datetime, end: datetime, energy_kwh: float, reading: Reading | None, pue: float) -> PricedInterval:
    return PricedInterval(
        start=start,
        end=end,
        energy_kwh=energy_kwh,
        intensity_gco2e_per_kwh=None if reading is None else reading.gco2e_per_kwh,
        emissions_gco2e=None if reading is None else energy_kwh * pue * reading.gco2e_per_kwh,
        covered_share=0.0 if reading is None else 1.0,
        estimated=reading is None or reading.estimated,
        sources=() if reading is None else (reading.source,),
        signal=None if reading is None else reading.signal,
        pue=pue,
    )


def _check(interval: MeteredEnergy, pue: float) -> None:
    _check_energy("energy_kwh", interval.energy_kwh)
    check_pue(pue)


def _check_energy(name: str, energy_kwh: float) -> None:
    if not math.isfinite(energy_kwh) or energy_kwh < 0:
        raise ValueError(f"{name} is {energy_kwh}: expected a finite number that is at least 0")
