"""Units of metered intervals, for the tests of the meter."""

from greencore.energy import EnergyInterval

JOULES_PER_KWH = 3.6e6


def seconds(interval: EnergyInterval) -> float:
    return (interval.end - interval.start).total_seconds()
