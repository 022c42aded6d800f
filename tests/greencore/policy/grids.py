"""Intensity series for tests: from a list of values, or a year that behaves like a grid."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from greencore.carbon import IntensitySeries, Reading

MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)


def at(hours: float, origin: datetime = MIDNIGHT) -> datetime:
    return origin + timedelta(hours=hours)


def reading(start: datetime, end: datetime, gco2e_per_kwh: float) -> Reading:
    return Reading(zone="X", start=start, end=end, gco2e_per_kwh=gco2e_per_kwh, source="test", fetched_at=start)


def pieces(*given: tuple[float, float, float], origin: datetime = MIDNIGHT) -> IntensitySeries:
    """(start, end, value) in hours from the origin."""
    return IntensitySeries(reading(at(start, origin), at(end, origin), value) for start, end, value in given)


def series(values: Sequence[float], *, minutes: float = 60, origin: datetime = MIDNIGHT) -> IntensitySeries:
    """Consecutive readings of `minutes` each."""
    edges = [origin + timedelta(minutes=minutes * index) for index in range(len(values) + 1)]
    return IntensitySeries(
        reading(start, end, float(value)) for start, end, value in zip(edges, edges[1:], values, strict=False)
    )


def year(hours: int = 8760, *, seed: int = 4) -> list[float]:
    """Synthetic hourly intensities: dirty evenings, clean weekends, a solar dip at noon, autocorrelated weather."""
    chance = np.random.default_rng(seed)
    hour = np.arange(hours)
    of_day, day = hour % 24, hour // 24
    sun = np.clip(np.sin((of_day - 6) / 12 * np.pi), 0.0, None) * (60 + 40 * np.sin((day - 80) / 365 * 2 * np.pi))
    evening = 40 * np.exp(-(((of_day - 19.5) / 2.5) ** 2))
    weekend = np.where(day % 7 >= 5, -25.0, 0.0)
    weather = np.zeros(hours)
    for index in range(1, hours):
        weather[index] = 0.97 * weather[index - 1] + chance.normal(0.0, 7.0)
    values: list[float] = np.clip(210 - sun + evening + weekend + weather, 5.0, None).round(2).tolist()
    return values
