"""An interval of metered energy, and its division in time."""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class EnergyInterval:
    """Energy in kWh (at least 0) of CPU, GPU and memory from `start` to `end` (UTC, start <= end).

    Each `*_method` is the measurement method, from `greencore.energy.methods`: "RAPL", "NVML energy counter",
    "TDP estimate", "configured power", "none" and others. `monotonic_start` is `start` on the machine's monotonic
    clock, in seconds, by which the length was measured; None where unknown. Raises ValueError with the invalid field.
    """

    start: datetime
    end: datetime
    cpu_kwh: float
    gpu_kwh: float
    ram_kwh: float
    cpu_method: str
    gpu_method: str
    ram_method: str
    monotonic_start: float | None = None

    def __post_init__(self) -> None:
        for name, time in (("start", self.start), ("end", self.end)):
            if time.utcoffset() != timedelta(0):
                raise ValueError(f"{name} is {time.isoformat()}: expected an aware time in UTC")
        if self.end < self.start:
            raise ValueError(f"end is {self.end.isoformat()}: expected no earlier than {self.start.isoformat()}")
        for name, energy in (("cpu_kwh", self.cpu_kwh), ("gpu_kwh", self.gpu_kwh), ("ram_kwh", self.ram_kwh)):
            if not math.isfinite(energy) or energy < 0:
                raise ValueError(f"{name} is {energy}: expected a finite number that is at least 0")

    @property
    def energy_kwh(self) -> float:
        """Energy of CPU, GPU and memory together, in kWh."""
        return self.cpu_kwh + self.gpu_kwh + self.ram_kwh

    def slice(self, start: datetime, end: datetime) -> "EnergyInterval":
        """Return the part from `start` to `end`, with energy in proportion to its length (constant power).

        The only part of an interval of length 0 has all of its energy. Raises ValueError where the part is not within
        the interval.
        """
        if not self.start <= start <= end <= self.end:
            raise ValueError(
                f"a part from {start.isoformat()} to {end.isoformat()}: expected it within the interval, "
                f"{self.start.isoformat()} to {self.end.isoformat()}"
            )
        share = 1.0 if self.start == self.end else (end - start) / (self.end - self.start)
        later = (start - self.start).total_seconds()
        return replace(
            self,
            start=start,
            end=end,
            cpu_kwh=self.cpu_kwh * share,
            gpu_kwh=self.gpu_kwh * share,
            ram_kwh=self.ram_kwh * share,
            monotonic_start=None if self.monotonic_start is None else self.monotonic_start + later,
        )

    def split(self, longest_seconds: float) -> "list[EnergyInterval]":
        """Divide the interval into parts of equal length, each at most `longest_seconds`."""
        length = self.end - self.start
        count = max(1, math.ceil(length / timedelta(seconds=longest_seconds)))
        edges = [self.start + length * number / count for number in range(count)] + [self.end]
        return [self.slice(begin, until) for begin, until in pairwise(edges)] if count > 1 else [self]
