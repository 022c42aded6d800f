"""The cleanest hours ahead in one piece, whatever is to be run in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from greencore.carbon.series import IntensitySeries
from greencore.policy.gate.hours import find_best_window

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class CleanWindow:
    """A window and the time-weighted mean intensity that is expected in it, in gCO2e/kWh."""

    start: datetime
    end: datetime
    gco2e_per_kwh: float


def find_cleanest_window(
    forecast: IntensitySeries, *, start: datetime, end: datetime, hours: float
) -> CleanWindow | None:
    """The window of `hours` within `[start, end]` with the lowest mean intensity, the earliest of equals.

    `forecast` has to be known throughout it: a window never spans a gap. None where no stretch is long enough. Raises
    ValueError where `hours` is not above 0.
    """
    if not hours > 0:
        raise ValueError(f"hours is {hours}: expected a length above 0")
    found = [window for piece in _stretches(forecast, start, end) if (window := _best(piece, hours)) is not None]
    # Differences in the last digits are no reason to wait.
    return min(found, key=lambda window: round(window.gco2e_per_kwh, 9), default=None)


# Where a part of a stretch begins and ends, and its intensity.
_Part = tuple[datetime, datetime, float]


def _stretches(forecast: IntensitySeries, start: datetime, end: datetime) -> Iterator[list[_Part]]:
    """What is known from `start` to `end`, cut where something is missing; earliest first."""
    stretch: list[_Part] = []
    for reading in forecast:
        begins, ends = max(reading.start, start), min(reading.end, end)
        if begins >= ends:
            continue
        if stretch and begins > stretch[-1][1]:
            yield stretch
            stretch = []
        stretch.append((begins, ends, reading.gco2e_per_kwh))
    if stretch:
        yield stretch


def _best(stretch: list[_Part], hours: float) -> CleanWindow | None:
    begins, ends = stretch[0][0], stretch[-1][1]
    if (ends - begins) / HOUR < hours:
        return None
    lengths = np.array([[(until - since) / HOUR for since, until, _ in stretch]])
    intensity = np.array([[gco2e_per_kwh for _, _, gco2e_per_kwh in stretch]])
    window = find_best_window(intensity, lengths, np.ones_like(lengths), np.array([hours]))
    opens = begins + float(window.delay_hours[0]) * HOUR
    return CleanWindow(opens, opens + hours * HOUR, float(window.emissions[0]) / hours)
