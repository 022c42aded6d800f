"""What every source of carbon intensity offers."""

import math
from datetime import datetime, timedelta
from typing import Protocol

from greencore.carbon.series import EmissionFactors, IntensitySeries, Reading, Signal


class Source(Protocol):
    """Readings of one zone: now, ahead and behind."""

    @property
    def zone(self) -> str:
        """The zone that the readings are of, as it was asked for."""

    @property
    def signal(self) -> Signal:
        """Whether every reading is of the grid's average or of its marginal intensity."""

    @property
    def emission_factors(self) -> EmissionFactors:
        """Whether every reading counts the whole life cycle of the plants, or only what they emit as they run."""

    def latest(self) -> Reading:
        """The reading that covers the present, else the most recent one.

        Raises NoReading where there is none.
        """

    def forecast(self, hours: float) -> IntensitySeries:
        """What is expected from now on for `hours` (greater than 0); it may end early.

        Raises ValueError where hours is not a finite number greater than 0.
        """

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        """Every reading that touches `[start, end)`, whole; empty where there is none.

        Raises ValueError where a time is naive or end lies before start.
        """


def forecast_end(now: datetime, hours: float) -> datetime:
    """`now` plus `hours`; raises ValueError where hours is not a finite number greater than 0."""
    if not math.isfinite(hours) or hours <= 0:
        raise ValueError(f"hours is {hours}: expected a finite number greater than 0")
    return now + timedelta(hours=hours)


def check_window(start: datetime, end: datetime) -> None:
    """Raises ValueError where a time is naive or end lies before start."""
    for name, time in (("start", start), ("end", end)):
        if time.utcoffset() is None:
            raise ValueError(f"{name} is {time.isoformat()}: expected an aware time")
    if end < start:
        raise ValueError(f"the window ends at {end.isoformat()}, before its start {start.isoformat()}")
