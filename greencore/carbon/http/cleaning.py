"""Converts a provider's points to readings: drops nulls, invalid values and duplicates, and cuts overlaps."""

import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from greencore.carbon.series import Basis, IntensitySeries, Reading, merge_readings

# Oil shale and lignite are below 1,500 g/kWh, a marginal plant at part load below 3,000.
HIGHEST_GCO2E_PER_KWH = 5000.0
# No request is for a coarser resolution: a wider spacing is a gap, a longer interval a fault.
LONGEST_SPACING = timedelta(hours=1)
LONGEST_INTERVAL = timedelta(hours=24)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DataPoint:
    """One value as the provider gave it; `start` and `end` in UTC.

    `end` is None where the provider does not give it. `gco2e_per_kwh` is any number, or None without a value; such a
    point still ends the one before it.
    """

    start: datetime
    end: datetime | None
    gco2e_per_kwh: float | None
    estimated: bool


def clean_points(
    points: Iterable[DataPoint], *, zone: str, source: str, basis: Basis, usual: timedelta, fetched_at: datetime
) -> IntensitySeries:
    """Convert `points`, in the order of the response, to a series.

    Points without a value are dropped, and so are those below 0, above 5,000 gCO2e/kWh, not finite, of no length or
    longer than 24 hours; one log event counts these by reason. Of two points with one start the later is kept, except
    that an estimate never replaces a measurement. Of two that overlap the later one counts, except that an estimate
    never covers a measurement. An interval without an end lasts until the next point, at most as long as its neighbours
    (`usual` without any): it never spans a gap.
    """
    answered = list(points)
    ends = interval_ends((point.start for point in answered), usual=usual, longest=LONGEST_SPACING)
    by_start: dict[datetime, Reading] = {}
    dropped: Counter[str] = Counter()
    for point in answered:
        value, end = point.gco2e_per_kwh, point.end or ends[point.start]
        if value is None:
            continue
        if fault := _fault(value, end - point.start):
            dropped[fault] += 1
            continue
        known = by_start.get(point.start)
        if known is None or known.estimated or not point.estimated:
            by_start[point.start] = Reading(
                zone=zone,
                start=point.start,
                end=end,
                gco2e_per_kwh=value,
                source=source,
                signal=basis.signal,
                emission_factors=basis.emission_factors,
                estimated=point.estimated,
                fetched_at=fetched_at,
            )
    if dropped:
        counts = " ".join(f"{reason}={count}" for reason, count in sorted(dropped.items()))
        _log.warning("carbon_values_dropped source=%s zone=%s %s", source, zone, counts)
    return merge_readings(by_start.values())


def interval_ends(starts: Iterable[datetime], *, usual: timedelta, longest: timedelta) -> dict[datetime, datetime]:
    """Return the end of the interval that begins at each start, from the spacing of the starts.

    A smaller spacing is a finer resolution. A wider one of at most `longest` is a coarser resolution where it is less
    than twice as wide, so that no start can be missing in it (the months of a year), or where two of one width follow
    one another; any other is a gap. An interval before a gap, and the last one, is as long as the one before it. The
    first resolution is the most common spacing, `usual` where there is none.
    """
    ascending = sorted(set(starts))
    spacings = [later - earlier for earlier, later in pairwise(ascending)]
    near = Counter(spacing for spacing in spacings if spacing <= longest)
    length = min(near, key=lambda spacing: (-near[spacing], spacing)) if near else usual
    ends: dict[datetime, datetime] = {}
    for index, start in enumerate(ascending):
        if index < len(spacings):
            spacing = spacings[index]
            following = spacings[index + 1] if index + 1 < len(spacings) else None
            is_coarser = spacing - length < length or spacing == following
            if spacing <= length or (is_coarser and spacing <= longest):
                length = spacing
        ends[start] = start + length
    return ends


def _fault(value: float, length: timedelta) -> str | None:
    if not math.isfinite(value):
        return "not_a_number"
    if value < 0:
        return "negative"
    if value > HIGHEST_GCO2E_PER_KWH:
        return "absurd"
    if length <= timedelta(0):
        return "no_length"
    return "too_long" if length > LONGEST_INTERVAL else None
