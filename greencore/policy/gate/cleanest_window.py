"""Finds the cleanest contiguous window of a forecast."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from greencore.carbon.accounting.pricing import covered_spans
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
    spans = [(max(since, start), min(until, end)) for since, until in covered_spans(forecast.overlapping(start, end))]
    found = [_best_window(forecast, since, until, hours) for since, until in spans if (until - since) / HOUR >= hours]
    # Rounded, so that a difference in the last digits does not prefer a later window.
    return min(found, key=lambda window: round(window.gco2e_per_kwh, 9), default=None)


def _best_window(forecast: IntensitySeries, start: datetime, end: datetime, hours: float) -> CleanWindow:
    readings = forecast.overlapping(start, end)
    lengths = np.array([[(min(one.end, end) - max(one.start, start)) / HOUR for one in readings]])
    intensity = np.array([[one.gco2e_per_kwh for one in readings]])
    window = find_best_window(intensity, lengths, np.ones_like(lengths), np.array([hours]))
    opens = start + float(window.delay_hours[0]) * HOUR
    return CleanWindow(opens, opens + hours * HOUR, float(window.emissions[0]) / hours)
