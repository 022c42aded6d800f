"""Metered energy: what a training run used, interval by interval, and how it was found."""

from greencore.energy.interval import EnergyInterval
from greencore.energy.meter import LONGEST_INTERVAL_SECONDS, EnergyMeter
from greencore.energy.methods import is_estimate

__all__ = ["LONGEST_INTERVAL_SECONDS", "EnergyInterval", "EnergyMeter", "is_estimate"]
