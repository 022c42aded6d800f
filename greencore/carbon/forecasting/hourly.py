"""Puts readings of any length on a grid of whole UTC hours, and bridges the hours that have none."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np

from greencore.carbon.errors import NoReading
from greencore.carbon.forecasting.pattern import DAY, Array
from greencore.carbon.series import IntensitySeries

INTERPOLATED_HOURS = 3

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class HourlySeries:
    """A zone's intensities by the hour: `values` [n >= 1] in gCO2e/kWh without gaps, the first from `start` in UTC."""

    start: datetime
    values: Array

    @property
    def end(self) -> datetime:
        """When the last hour ended."""
        return self.start + len(self.values) * _HOUR


def whole_hour(time: datetime) -> datetime:
    """The start of the UTC hour that `time` lies in."""
    return time.replace(minute=0, second=0, microsecond=0)


def resample_hourly(history: IntensitySeries, now: datetime, *, most_hours: int) -> HourlySeries:
    """The last `most_hours` hours of `history` that had ended by `now`, up to the last one that has a reading.

    Only readings that ended by `now` count. An hour takes the time-weighted mean of those that touch it. A gap of
    up to INTERPOLATED_HOURS is bridged in a straight line, a longer one with the same hour of the day before, or with
    the last value where that is missing. Where nothing but the hour of `now` itself has readings, they stand for
    the hour before. Raises NoReading where no reading had ended by `now`.
    """
    used = [reading for reading in history if reading.end <= now]
    if not used:
        raise NoReading(f"no reading had ended by {now.isoformat()}: expected at least one to forecast from")
    knots = np.array([(edge - _EPOCH) / _HOUR for reading in used for edge in (reading.start, reading.end)])
    covered, weighted = np.zeros(len(knots)), np.zeros(len(knots))
    lengths = knots[1::2] - knots[::2]
    covered[1::2] = lengths
    weighted[1::2] = lengths * np.array([reading.gco2e_per_kwh for reading in used])
    present = round((whole_hour(now) - _EPOCH) / _HOUR)
    begin = int(max(np.floor(knots[0]), present - most_hours))
    edges = np.arange(begin, max(present, begin + 1) + 1)
    hours_covered = np.diff(np.interp(edges, knots, np.cumsum(covered)))
    hours_weighted = np.diff(np.interp(edges, knots, np.cumsum(weighted)))
    known = hours_covered > _MIN_COVERED
    if not known.any():
        raise NoReading(f"no reading ended within the {most_hours} hours before {now.isoformat()}")
    first, last = np.flatnonzero(known)[[0, -1]]
    values = np.full(len(known), np.nan)
    values[known] = np.maximum(hours_weighted[known] / hours_covered[known], 0.0)
    start = min(begin + int(first), present - 1)
    return HourlySeries(_EPOCH + start * _HOUR, _bridge_gaps(values[first : last + 1]))


# Rounding in the running totals leaves this much less than a second uncertain, in hours.
_MIN_COVERED = 1e-6


def _bridge_gaps(values: Array) -> Array:
    """`values`, whose first and last are known, with its NaNs filled."""
    known = np.flatnonzero(~np.isnan(values))
    bridged = values.copy()
    for before, after in pairwise(known):
        if after - before == 1:
            continue
        if after - before - 1 <= INTERPOLATED_HOURS:
            bridged[before : after + 1] = np.linspace(values[before], values[after], after - before + 1)
            continue
        for hour in range(before + 1, after):
            bridged[hour] = bridged[hour - DAY] if hour >= DAY else bridged[hour - 1]
    return bridged
