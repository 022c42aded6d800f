"""Resamples readings of any length to whole UTC hours, and fills the gaps."""

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np

from greencore.arrays import Floats
from greencore.carbon.errors import NoReading
from greencore.carbon.forecasting.pattern import DAY
from greencore.carbon.series import IntensitySeries
from greencore.clock import HOUR, whole_hour

INTERPOLATED_HOURS = 3

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Rounding of the running totals, in hours: far less than a second.
_MIN_COVERED = 1e-6


@dataclass(frozen=True, slots=True)
class HourlySeries:
    """Hourly intensities of a zone: `values` [n >= 1] in gCO2e/kWh without gaps, the first from `start` (UTC)."""

    start: datetime
    values: Floats

    @property
    def end(self) -> datetime:
        """End of the last hour (UTC)."""
        return self.start + len(self.values) * HOUR


def resample_hourly(history: IntensitySeries, now: datetime, *, most_hours: int) -> HourlySeries:
    """Return up to `most_hours` hours of `history` before `now`, the last one with a reading.

    Only readings that ended by `now` are used. An hour takes the time-weighted mean of the readings that overlap it. A
    gap of up to INTERPOLATED_HOURS is interpolated linearly, a longer one takes the same hour of the day before, or
    the last value where that is missing. Where only the current hour has readings, they count as those of the hour
    before. Raises NoReading where no reading had ended by `now`.
    """
    used = [reading for reading in history if reading.end <= now]
    if not used:
        raise NoReading(f"no reading had ended by {now.isoformat()}: expected at least one to forecast from")
    knots = np.array([(edge - _EPOCH) / HOUR for reading in used for edge in (reading.start, reading.end)])
    covered, weighted = np.zeros(len(knots)), np.zeros(len(knots))
    lengths = knots[1::2] - knots[::2]
    covered[1::2] = lengths
    weighted[1::2] = lengths * np.array([reading.gco2e_per_kwh for reading in used])
    present = round((whole_hour(now) - _EPOCH) / HOUR)
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
    return HourlySeries(_EPOCH + start * HOUR, _fill_gaps(values[first : last + 1]))


def _fill_gaps(values: Floats) -> Floats:
    """Fill the NaNs of `values`, whose first and last are known."""
    known = np.flatnonzero(~np.isnan(values))
    filled = values.copy()
    for before, after in pairwise(known):
        if after - before == 1:
            continue
        if after - before - 1 <= INTERPOLATED_HOURS:
            filled[before : after + 1] = np.linspace(values[before], values[after], after - before + 1)
            continue
        for hour in range(before + 1, after):
            filled[hour] = filled[hour - DAY] if hour >= DAY else filled[hour - 1]
    return filled
