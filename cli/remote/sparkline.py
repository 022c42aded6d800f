"""Hourly means of a forecast as a line of bars, and its cleanest hours."""

from collections.abc import Sequence
from datetime import datetime

from greencore.clock import HOUR
from greentune.models import Reading

BARS = "▁▂▃▄▅▆▇█"
GAP = " "
CLEANEST = 3


def first_hour(readings: Sequence[Reading]) -> datetime:
    """Return the full hour of the first reading, so that the service's clock counts, not this machine's."""
    return min(reading.start for reading in readings).replace(minute=0, second=0, microsecond=0)


def hourly_means(readings: Sequence[Reading], start: datetime, hours: int) -> list[float | None]:
    """Return the mean of each of `hours` hours from `start` on, in gCO2e/kWh; None for one without readings."""
    means: list[float | None] = []
    for offset in range(hours):
        begin = start + offset * HOUR
        parts = [
            (max(0.0, (min(reading.end, begin + HOUR) - max(reading.start, begin)).total_seconds()), reading)
            for reading in readings
        ]
        covered = sum(seconds for seconds, _ in parts)
        weighted = sum(seconds * reading.gco2e_per_kwh for seconds, reading in parts)
        means.append(weighted / covered if covered else None)
    return means


def sparkline(values: Sequence[float | None]) -> str:
    """Return a bar for each value, the lowest for the smallest; empty without values."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    steps = len(BARS) - 1
    return "".join(
        GAP if value is None else BARS[round((value - low) / span * steps) if span else 0] for value in values
    )


def cleanest_hours(means: Sequence[float | None], start: datetime) -> str:
    """Format the `CLEANEST` cleanest hours from `start` on in order of time, adjacent ones as one span."""
    known = sorted((mean, place) for place, mean in enumerate(means) if mean is not None)
    places = sorted(place for _, place in known[:CLEANEST])
    spans: list[list[int]] = []
    for place in places:
        if spans and spans[-1][-1] == place - 1:
            spans[-1].append(place)
        else:
            spans.append([place])
    return ", ".join(f"{start + span[0] * HOUR:%H:%M}–{start + (span[-1] + 1) * HOUR:%H:%M}" for span in spans)
