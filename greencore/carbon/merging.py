"""Makes one series of readings that say different things about the same time."""

import heapq
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from greencore.carbon.series import IntensitySeries, Reading


def merge_readings(readings: Iterable[Reading]) -> IntensitySeries:
    """A series without overlaps, from readings of one zone and signal that may have some.

    Where two describe the same time, a measured one stands before an estimate, then the one fetched later, then the
    one that began later, which is the finer of two resolutions. What is left of the other stays, cut to its rest.
    Raises InvalidReading where zones or signals are mixed.
    """
    coming = sorted(readings, key=lambda reading: reading.start, reverse=True)
    edges = sorted({time for reading in coming for time in (reading.start, reading.end)})
    begun: list[tuple[tuple[bool, float, float], int, Reading]] = []
    pieces: list[tuple[Reading, datetime, datetime]] = []
    for start, end in pairwise(edges):
        while coming and coming[-1].start <= start:
            reading = coming.pop()
            heapq.heappush(begun, (_last_of_rank(reading), len(coming), reading))
        while begun and begun[0][2].end <= start:
            heapq.heappop(begun)
        if not begun:
            continue
        standing = begun[0][2]
        if pieces and pieces[-1][0] is standing and pieces[-1][2] == start:
            start = pieces.pop()[1]
        pieces.append((standing, start, end))
    return IntensitySeries(replace(reading, start=start, end=end) for reading, start, end in pieces)


def _last_of_rank(reading: Reading) -> tuple[bool, float, float]:
    """Sorts the reading that stands first."""
    return reading.estimated, -reading.fetched_at.timestamp(), -reading.start.timestamp()
