"""Prices metered energy with the carbon intensity at the time of its use."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from greencore.carbon.series import IntensitySeries, Reading, WeightedIntensity

TimeSpan = tuple[datetime, datetime]
"""Start and end, in UTC."""

ROUNDING = 1e-9  # as a share: sums of the same energies may differ by it

TRACKER_TOLERANCE = 0.05
"""Largest absolute `tracker_difference` without a warning."""


class TimeInterval(Protocol):
    """An interval between two UTC times."""

    @property
    def start(self) -> datetime:
        """Start time (UTC)."""

    @property
    def end(self) -> datetime:
        """End time (UTC); not before `start`."""


class MeteredEnergy(TimeInterval, Protocol):
    """Energy used between two UTC times, such as `greencore.energy.EnergyInterval`."""

    @property
    def energy_kwh(self) -> float:
        """Energy used within the interval in kWh; at least 0."""


@dataclass(frozen=True, slots=True)
class PricedInterval:
    """Metered energy of one interval with its intensity and its emissions.

    Emissions are energy · `pue` · intensity: `energy_kwh` is what the machine used, `pue` (at least 1) the kWh that
    its site draws for each of them. `covered_share`, `estimated` and `sources` describe the intensity: see
    `WeightedIntensity`. Without one, intensity and emissions are None, `sources` is empty, `covered_share` 0 and
    `estimated` true.
    """

    start: datetime
    end: datetime
    energy_kwh: float
    intensity_gco2e_per_kwh: float | None
    emissions_gco2e: float | None
    covered_share: float
    estimated: bool
    sources: tuple[str, ...]
    pue: float = 1.0


def price_interval(interval: MeteredEnergy, series: IntensitySeries, *, pue: float = 1.0) -> PricedInterval:
    """Price one interval as a whole at constant power: E · PUE · ∫c(t)dt / (end − start).

    Uncovered time takes the nearest intensity, as in `IntensitySeries.mean`; `price_by_reading` leaves it unpriced.
    Raises NoReading where `series` is empty, ValueError where the energy is negative or not finite, or `pue` below 1.
    """
    _check(interval, pue)
    start, end = interval.start, interval.end
    return _price(start, end, interval.energy_kwh, series.mean(start, end), pue)


def price_by_reading(interval: MeteredEnergy, series: IntensitySeries, *, pue: float = 1.0) -> list[PricedInterval]:
    """Cut an interval where a reading begins or ends, and price each piece with the intensity of its time.

    The pieces are contiguous and share the energy by their length (constant power). A piece that no reading covers
    keeps its energy, with intensity and emissions None: only the fallback chain adds substitutes, to `series`. An
    interval of no length is one piece. Raises ValueError where the energy is negative or not finite, or `pue` below 1.
    """
    _check(interval, pue)
    start, end = interval.start, interval.end
    if start == end or not len(series):
        return [_price(start, end, interval.energy_kwh, series.at(start), pue)]
    return [
        _price(begin, until, interval.energy_kwh * ((until - begin) / (end - start)), reading if covers else None, pue)
        for begin, until, reading, covers in series.pieces(start, end)
    ]


def is_settled(piece: TimeInterval, series: IntensitySeries) -> bool:
    """Return whether measured readings of `series`, the provider's history, cover all of `piece`: its price is final.

    A piece of no length is settled where a measured reading covers its instant.
    """
    if piece.start == piece.end or not len(series):
        reading = series.at(piece.start)
        return reading is not None and not reading.estimated
    return all(covers and not reading.estimated for _, _, reading, covers in series.pieces(piece.start, piece.end))


def tracker_difference(ours_kwh: float, tracker_kwh: float | None) -> float | None:
    """Return (our energy − CodeCarbon's total) / the larger of the two, in [-1, 1].

    None where the tracker gave no total, or both are 0. Energies before PUE are compared, since CodeCarbon prices a
    run at one intensity: a difference means that intervals were lost or counted twice. Both figures must be of the
    same runs of the meter: a killed run leaves intervals and no total. Raises ValueError where a figure is negative or
    not finite.
    """
    for name, energy in (("ours_kwh", ours_kwh), ("tracker_kwh", tracker_kwh)):
        if energy is not None:
            check_not_negative(name, energy)
    if tracker_kwh is None or (larger := max(ours_kwh, tracker_kwh)) == 0:
        return None
    return (ours_kwh - tracker_kwh) / larger


def covered_spans(readings: Iterable[Reading]) -> list[TimeSpan]:
    """Return the contiguous time spans that `readings` (sorted, without overlaps) cover."""
    spans: list[TimeSpan] = []
    for reading in readings:
        start = reading.start
        if spans and spans[-1][1] == start:
            start = spans.pop()[0]
        spans.append((start, reading.end))
    return spans


def known_emissions(emissions_gco2e: float, *, energy_kwh: float, unpriced_kwh: float) -> float | None:
    """Return the emissions of the priced energy; None where all of the energy is unpriced."""
    return None if unpriced_kwh > 0 and unpriced_kwh >= energy_kwh * (1 - ROUNDING) else emissions_gco2e


def check_not_negative(name: str, value: float) -> None:
    """Raise ValueError where a value is not a finite number of at least 0."""
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} is {value}: expected a finite number that is at least 0")


def check_pue(pue: float) -> None:
    """Raise ValueError where a power usage effectiveness is not a finite number of at least 1."""
    if not math.isfinite(pue) or pue < 1:
        raise ValueError(f"pue is {pue}: expected a finite number that is at least 1")


def _price(
    start: datetime, end: datetime, energy_kwh: float, known: Reading | WeightedIntensity | None, pue: float
) -> PricedInterval:
    if known is None:
        return PricedInterval(start, end, energy_kwh, None, None, 0.0, True, (), pue)
    emissions = energy_kwh * pue * known.gco2e_per_kwh
    covered, sources = (1.0, (known.source,)) if isinstance(known, Reading) else (known.covered_share, known.sources)
    return PricedInterval(
        start, end, energy_kwh, known.gco2e_per_kwh, emissions, covered, known.estimated, sources, pue
    )


def _check(interval: MeteredEnergy, pue: float) -> None:
    check_not_negative("energy_kwh", interval.energy_kwh)
    check_pue(pue)
