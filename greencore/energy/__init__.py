"""Energy metering of a training run: intervals with energy and measurement method."""

from greencore.energy.interval import EnergyInterval
from greencore.energy.meter import LONGEST_INTERVAL_SECONDS, EnergyMeter, UnreportedPeriod
from greencore.energy.methods import is_estimate, is_unresponsive
from greencore.energy.source import EnergySource

__all__ = [
    "LONGEST_INTERVAL_SECONDS",
    "EnergyInterval",
    "EnergyMeter",
    "EnergySource",
    "UnreportedPeriod",
    "is_estimate",
    "is_unresponsive",
]
