"""Interface of a source of carbon intensity, which the static mean, traces and providers implement."""

import math
from datetime import datetime, timedelta
from typing import Protocol

from greencore.carbon.series import EmissionFactors, IntensitySeries, Reading, Signal


class Source(Protocol):
    """Current, forecast and past readings of one zone, all of one signal and the same emission factors."""

    zone: str
    signal: Signal
    emission_factors: EmissionFactors

    def latest(self) -> Reading:
        """Return the current reading, else the most recent one; raises NoReading where there is none."""

    def forecast(self, hours: float) -> IntensitySeries:
        """Return the forecast from now on, for `hours` or less.

        Raises ValueError where `hours` is not a finite number greater than 0.
        """

    def history(self, start: datetime, end: datetime) -> IntensitySeries:
        """Return the readings that overlap `[start, end)`, uncut.

        Raises ValueError where a time is naive or `end` is before `start`.
        """


def forecast_end(now: datetime, hours: float) -> datetime:
    """Return `now` plus `hours`; raises ValueError where `hours` is not a finite number greater than 0."""
    if not math.isfinite(hours) or hours <= 0:
        raise ValueError(f"hours is {hours}: expected a finite number greater than 0")
    return now + timedelta(hours=hours)
