"""Length of a metered interval, for the tests of the meter."""

from greencore.energy import EnergyInterval


def seconds(interval: EnergyInterval) -> float:
    return (interval.end - interval.start).total_seconds()
