"""Hourly means of a forecast as a line of bars, and its cleanest hours."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from greencore.clock import HOUR, whole_hour

if TYPE_CHECKING:
    from greentune.models import Reading

BARS = "▁▂▃▄▅▆▇█"
GAP = " "
CLEANEST = 3

HourlyMeans = Mapping[datetime, float | None]
"""Start of each hour, in order, and its mean in gCO2e/kWh; None for an hour without readings."""


def hourly_means(readings: "Sequence[Reading]", hours: int) -> HourlyMeans:
    """Return the means of `hours` hours from that of the first reading on; empty without readings."""
    if not readings:
        return {}
    # Not from this machine's clock: the service's counts.
    first = whole_hour(min(reading.start for reading in readings))
    means: dict[datetime, float | None] = {}
    for begin in (first + offset * HOUR for offset in range(hours)):
        parts = [
            (max(0.0, (min(reading.end, begin + HOUR) - max(reading.start, begin)).total_seconds()), reading)
            for reading in readings
        ]
        covered = sum(seconds for seconds, _ in parts)
        weighted = sum(seconds * reading.gco2e_per_kwh for seconds, reading in parts)
        means[begin] = weighted / covered if covered else None
    return means


def sparkline(means: HourlyMeans) -> str:
    """Return a bar for each hour, the lowest for the smallest mean; empty without means."""
    known = [mean for mean in means.values() if mean is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    steps = len(BARS) - 1
    return "".join(
        GAP if mean is None else BARS[round((mean - low) / span * steps) if span else 0] for mean in means.values()
    )


def cleanest_hours(means: HourlyMeans) -> str:
    """Format the `CLEANEST` cleanest hours in order of time, adjacent ones as one span."""
    known = sorted((mean, hour) for hour, mean in means.items() if mean is not None)
    spans: list[list[datetime]] = []
    for hour in sorted(hour for _, hour in known[:CLEANEST]):
        if spans and spans[-1][1] == hour:
            spans[-1][1] += HOUR
        else:
            spans.append([hour, hour + HOUR])
    return ", ".join(f"{start:%H:%M}–{end:%H:%M}" for start, end in spans)
