"""Makes readings of what a provider answered: free of nulls, absurd values, duplicates and overlaps."""

import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

from greencore.carbon.series import EmissionFactors, Reading, Signal

# Oil shale and lignite stay under 1,500 g/kWh, a marginal plant at part load under 3,000.
HIGHEST_GCO2E_PER_KWH = 5000.0
# No provider is asked for anything coarser, so a wider spacing is a gap and a longer interval a mistake.
LONGEST_SPACING = timedelta(hours=1)
LONGEST_INTERVAL = timedelta(hours=24)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DataPoint:
    """One value as a provider gave it, `start` and `end` in UTC.

    `end` is None where the provider does not say it; `gco2e_per_kwh` is None where it has no value, and may be
    any number; a point without a value still tells where the one before it ends.
    """

    start: datetime
    end: datetime | None
    gco2e_per_kwh: float | None
    estimated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingOrigin:
    """What all readings of one provider and zone have in common."""

    zone: str
    source: str
    signal: Signal
    emission_factors: EmissionFactors


def clean_points(
    points: Iterable[DataPoint], origin: ReadingOrigin, *, usual: timedelta, fetched_at: datetime
) -> list[Reading]:
    """The readings that `points`, in the order in which they were answered, amount to, earliest first.

    Points without a value are dropped; so are those below 0, above 5,000 gCO2e/kWh or no number, those that end
    before they begin, and those longer than 24 hours, which one log event counts by reason. Of two points that
    begin together the later one stands, except that an estimate never replaces a measurement. Where two overlap,
    the earlier is cut where the later begins, except that a measurement is never cut for an estimate. An interval
    whose end was not given lasts until the next point, at most as long as its neighbours do (`usual` where there
    are none): it never stretches over a gap.
    """
    answered = list(points)
    ends = interval_ends((point.start for point in answered), usual=usual, longest=LONGEST_SPACING)
    standing: dict[datetime, DataPoint] = {}
    dropped: Counter[str] = Counter()
    for point in answered:
        if point.gco2e_per_kwh is None:
            continue
        whole = replace(point, end=ends[point.start] if point.end is None else point.end)
        fault = _fault(whole)
        if fault is not None:
            dropped[fault] += 1
            continue
        known = standing.get(point.start)
        if known is None or known.estimated or not point.estimated:
            standing[point.start] = whole
    if dropped:
        counts = " ".join(f"{reason}={count}" for reason, count in sorted(dropped.items()))
        _log.warning("carbon_values_dropped source=%s zone=%s %s", origin.source, origin.zone, counts)
    return [
        Reading(
            zone=origin.zone,
            start=start,
            end=end,
            gco2e_per_kwh=point.gco2e_per_kwh or 0.0,
            source=origin.source,
            signal=origin.signal,
            emission_factors=origin.emission_factors,
            estimated=point.estimated,
            fetched_at=fetched_at,
        )
        for start, end, point in _without_overlaps(standing)
    ]


def interval_ends(starts: Iterable[datetime], *, usual: timedelta, longest: timedelta) -> dict[datetime, datetime]:
    """The end of the interval that begins at each start, judged by the spacing of the starts alone.

    A spacing that shrinks is a finer resolution. A wider one is a coarser resolution, of at most `longest`, where it is
    less than twice as wide, so that no start can be missing in it (the months of a year), or where two of one width
    follow one another; any other is a gap, before which the interval is as long as the one before it, as is the last
    interval. Until a spacing has told the resolution, the most common one holds, `usual` where there is none.
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


def _fault(point: DataPoint) -> str | None:
    value = point.gco2e_per_kwh
    if value is None or not math.isfinite(value):
        return "not_a_number"
    if value < 0:
        return "negative"
    if value > HIGHEST_GCO2E_PER_KWH:
        return "absurd"
    if point.end is None or point.end <= point.start:
        return "no_length"
    if point.end - point.start > LONGEST_INTERVAL:
        return "too_long"
    return None


def _without_overlaps(standing: dict[datetime, DataPoint]) -> list[tuple[datetime, datetime, DataPoint]]:
    kept: list[tuple[datetime, datetime, DataPoint]] = []
    for _, point in sorted(standing.items()):
        start, end = point.start, point.end
        assert end is not None, "_fault lets no point without an end stand"
        while kept and kept[-1][1] > start:
            earlier_start, _, earlier = kept[-1]
            if point.estimated and not earlier.estimated:
                start = kept[-1][1]
                break
            kept.pop()
            # An estimate that was moved behind a measurement may begin only now.
            if earlier_start < start:
                kept.append((earlier_start, start, earlier))
                break
        if start < end:
            kept.append((start, end, point))
    return kept
