"""Finds the cleanest contiguous window of a forecast."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from greencore.carbon.series import IntensitySeries
from greencore.clock import HOUR
from greencore.policy.gate.hours import find_best_window


@dataclass(frozen=True)
class CleanWindow:
    """A window and its expected time-weighted mean intensity in gCO2e/kWh."""

    start: datetime
    end: datetime
    gco2e_per_kwh: float


def find_cleanest_window(
    forecast: IntensitySeries, *, start: datetime, end: datetime, hours: float
) -> CleanWindow | None:
    """Find the window of `hours` within `[start, end]` with the lowest mean intensity, the earliest of equals.

    A window never spans a gap of `forecast`; None where no stretch without a gap is long enough. Raises ValueError
    where `hours` is not above 0.
    """
    if not hours > 0:
        raise ValueError(f"hours is {hours}: expected a length above 0")
    found = [window for piece in _stretches(forecast, start, end) if (window := _best(piece, hours)) is not None]
    # Rounded, so that a difference in the last digits does not prefer a later window.
    return min(found, key=lambda window: round(window.gco2e_per_kwh, 9), default=None)


# Start, end and intensity of a part of a stretch.
_Part = tuple[datetime, datetime, float]


def _stretches(forecast: IntensitySeries, start: datetime, end: datetime) -> Iterator[list[_Part]]:
    """Yield the stretches of the forecast within `[start, end]` that have no gap, earliest first."""
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
