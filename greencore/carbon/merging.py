"""Merges overlapping readings of one zone into a series."""

import heapq
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from greencore.carbon.series import IntensitySeries, Reading


def merge_readings(readings: Iterable[Reading]) -> IntensitySeries:
    """Merge readings of one zone and signal, which may overlap, into a series.

    Of two at the same time a measured one replaces an estimate, then one fetched later, then one that began later (the
    finer resolution); the other is cut to the remaining time. Raises InvalidReading where zones or signals are mixed.
    """
    coming = sorted(readings, key=lambda reading: reading.start, reverse=True)
    edges = sorted({time for reading in coming for time in (reading.start, reading.end)})
    begun: list[tuple[tuple[bool, float, float], int, Reading]] = []
    pieces: list[tuple[Reading, datetime, datetime]] = []
    for start, end in pairwise(edges):
        while coming and coming[-1].start <= start:
            reading = coming.pop()
            heapq.heappush(begun, (_rank(reading), len(coming), reading))
        while begun and begun[0][2].end <= start:
            heapq.heappop(begun)
        if not begun:
            continue
        best = begun[0][2]
        if pieces and pieces[-1][0] is best and pieces[-1][2] == start:
            start = pieces.pop()[1]
        pieces.append((best, start, end))
    return IntensitySeries(replace(reading, start=start, end=end) for reading, start, end in pieces)


def _rank(reading: Reading) -> tuple[bool, float, float]:
    """Return the sort key of a reading: the lowest has precedence."""
    return reading.estimated, -reading.fetched_at.timestamp(), -reading.start.timestamp()
