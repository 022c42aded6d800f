"""Cuts an intensity series into slots of equal length, so that thousands of runs can be reckoned at once."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from greencore.carbon.errors import NoReading
from greencore.carbon.series import IntensitySeries

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HOUR_SECONDS = 3600
# Finer data is averaged: a decision every five minutes is as fine as a checkpoint allows.
SHORTEST_SLOT_SECONDS = 300


@dataclass(frozen=True)
class Slots:
    """A series on a grid: slot k lasts from `origin` + k · `step_hours`, at `intensity`[k] gCO2e/kWh.

    A whole number of slots makes an hour, and hours of UTC begin at slots.
    """

    origin: datetime
    step_hours: float
    intensity: Floats

    @classmethod
    def from_series(cls, series: IntensitySeries) -> "Slots":
        """The grid that resolves every reading of `series`, down to 5 minutes; gaps take the reading before them.

        Raises NoReading on an empty series.
        """
        if not len(series):
            raise NoReading("an empty series cannot be cut into slots")
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
        """Slots in an hour."""
        return round(1 / self.step_hours)

    @property
    def end(self) -> datetime:
        """Where the last slot ends."""
        return self.time(len(self.intensity))

    def time(self, slot: float) -> datetime:
        """When a slot begins; a fraction lies within one."""
        return self.origin + timedelta(hours=float(slot) * self.step_hours)

    def position(self, time: datetime) -> float:
        """The place of a time on the grid, in slots."""
        return (time - self.origin) / timedelta(hours=self.step_hours)

    def hourly(self) -> Floats:
        """The means of whole hours; a last hour that is not whole is left out."""
        whole = len(self.intensity) // self.per_hour
        hours: Floats = self.intensity[: whole * self.per_hour].reshape(whole, self.per_hour).mean(axis=1)
        return hours


def _means(series: IntensitySeries, origin: datetime, step: int, count: int) -> Floats:
    """The time-weighted mean of each slot; one that lies within a reading has that reading's very value."""
    values = np.array([reading.gco2e_per_kwh for reading in series])
    edges = np.array([(reading.start - origin).total_seconds() for reading in series])
    # Before the first reading, within its hour, the first reading holds.
    edges[0] = 0.0
    grid = np.arange(count + 1) * float(step)
    first = np.searchsorted(edges, grid[:-1], side="right") - 1
    last = np.searchsorted(edges, grid[1:], side="left") - 1
    integral = np.concatenate([[0.0], np.cumsum(np.diff(edges) * values[:-1])])
    up_to = np.interp(grid, edges, integral) + np.maximum(grid - edges[-1], 0.0) * values[-1]
    # A difference of integrals leaves rounding: it must not move what is exactly at a bound, nor turn a 0 into less.
    mixed = np.maximum(np.diff(up_to) / step, 0.0)
    means: Floats = np.where(first == last, values[first], mixed)
    return means
