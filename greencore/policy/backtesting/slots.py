"""Resamples an intensity series to slots of equal length, so that thousands of runs can be simulated at once."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from greencore.arrays import Floats, Ints
from greencore.carbon.errors import NoReading
from greencore.carbon.series import IntensitySeries

HOUR_SECONDS = 3600
# Finer data is averaged: checkpoints do not allow decisions more often than every five minutes.
SHORTEST_SLOT_SECONDS = 300


@dataclass(frozen=True)
class Slots:
    """Series on a grid: slot k starts at `origin` + k · `step_hours` and has the intensity `intensity`[k] gCO2e/kWh.

    An hour is a whole number of slots, and each UTC hour starts with a slot.
    """

    origin: datetime
    step_hours: float
    intensity: Floats

    @classmethod
    def from_series(cls, series: IntensitySeries) -> "Slots":
        """Build the grid that resolves every reading of `series`, down to 5 minutes; gaps take the reading before them.

        Raises NoReading on an empty series.
        """
        if not len(series):
            raise NoReading("an empty series cannot be resampled to slots")
        readings = series.readings
        origin = readings[0].start.replace(minute=0, second=0, microsecond=0)
        edges = sorted(
            {(time - origin).total_seconds() for reading in readings for time in (reading.start, reading.end)}
        )
        step = math.gcd(HOUR_SECONDS, *(round(edge) for edge in edges))
        whole = all(edge == round(edge) for edge in edges)
        if step < SHORTEST_SLOT_SECONDS or not whole:
            step = SHORTEST_SLOT_SECONDS
        count = math.ceil(edges[-1] / step)
        return cls(origin, step / HOUR_SECONDS, _means(series, origin, step, count))

    @property
    def per_hour(self) -> int:
        """Number of slots in an hour."""
        return round(1 / self.step_hours)

    @property
    def end(self) -> datetime:
        """End of the last slot."""
        return self.time(len(self.intensity))

    def time(self, slot: float) -> datetime:
        """Start time of a slot; a fraction is a time within it."""
        return self.origin + timedelta(hours=float(slot) * self.step_hours)

    def position(self, time: datetime) -> float:
        """Position of a time on the grid, in slots."""
        return (time - self.origin) / timedelta(hours=self.step_hours)

    def at(self, slot: Ints) -> Floats:
        """Intensities of slots; beyond the last one, its own."""
        return self.intensity[np.minimum(slot, len(self.intensity) - 1)]

    def hourly(self) -> Floats:
        """Mean intensities of whole hours; an incomplete last hour is left out."""
        whole = len(self.intensity) // self.per_hour
        hours: Floats = self.intensity[: whole * self.per_hour].reshape(whole, self.per_hour).mean(axis=1)
        return hours


def _means(series: IntensitySeries, origin: datetime, step: int, count: int) -> Floats:
    """Time-weighted mean of each slot; a slot within one reading has exactly that reading's value."""
    values = np.array([reading.gco2e_per_kwh for reading in series])
    edges = np.array([(reading.start - origin).total_seconds() for reading in series])
    # The first reading also covers the part of its hour before it.
    edges[0] = 0.0
    grid = np.arange(count + 1) * float(step)
    first = np.searchsorted(edges, grid[:-1], side="right") - 1
    last = np.searchsorted(edges, grid[1:], side="left") - 1
    integral = np.concatenate([[0.0], np.cumsum(np.diff(edges) * values[:-1])])
    up_to = np.interp(grid, edges, integral) + np.maximum(grid - edges[-1], 0.0) * values[-1]
    # Differences of integrals have rounding errors, which must not move a value across a bound, nor below 0.
    mixed = np.maximum(np.diff(up_to) / step, 0.0)
    return np.where(first == last, values[first], mixed)
