"""Policy context: the inputs of a policy's decision at the start of an epoch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from greencore.arrays import Floats
from greencore.carbon.series import IntensitySeries, Reading
from greencore.policy.rho.smoothing import PreviousRho
from greencore.policy.rho.utility import DEFAULT_UTILITY, UtilityCurve

ASSUMED_LOSS_PER_EPOCH = 0.5
EMPTY_SERIES = IntensitySeries()


@dataclass(frozen=True, kw_only=True)
class PolicyContext:
    """State of the grid and of the run at `now` (aware), before an epoch starts.

    `reading` is the newest intensity, `step` the step of the fallback chain that found it, `refused` the reason why no
    substitute was used where there is no reading; `window` holds the stored past readings and `forecast` the expected
    ones from `now` on. `previous` is None at the first epoch; `epochs_left` includes the epoch that starts.
    `epoch_hours` and `epoch_kwh` (PUE included) are those of an epoch at ρ = 1, None where unknown; `spent_gco2e` are
    the run's emissions so far, and those that its evaluations will take. `utility` is None until the first probe,
    `loss_per_epoch` (decrease of the loss by an epoch at ρ = 1) until it is measured. Raises ValueError, naming the
    field, for a value out of range.
    """

    now: datetime
    reading: Reading | None
    step: str | None = None
    refused: str | None = None
    window: IntensitySeries = EMPTY_SERIES
    forecast: IntensitySeries = EMPTY_SERIES
    previous: PreviousRho | None = None
    epochs_left: int = 1
    epoch_hours: float | None = None
    epoch_kwh: float | None = None
    spent_gco2e: float = 0.0
    utility: UtilityCurve | None = None
    loss_per_epoch: float | None = None

    def __post_init__(self) -> None:
        if self.now.utcoffset() is None:
            raise ValueError(f"now is {self.now.isoformat()}: expected an aware time")
        if self.epochs_left < 1:
            raise ValueError(f"epochs_left is {self.epochs_left}: expected at least 1, the epoch that starts")
        for name in ("epoch_hours", "epoch_kwh", "spent_gco2e"):
            figure = getattr(self, name)
            if figure is not None and not 0 <= figure < float("inf"):
                raise ValueError(f"{name} is {figure}: expected a finite number that is at least 0")

    @property
    def curve(self) -> UtilityCurve:
        """Utility curve of the run, else the default one, scaled to 1 at ρ = 1."""
        return (self.utility or DEFAULT_UTILITY).normalise()

    @property
    def expected(self) -> IntensitySeries:
        """Forecast from the reading on: the reading fills the time before the forecast, or replaces an empty one."""
        if self.reading is None:
            return self.forecast
        if not len(self.forecast):
            return IntensitySeries([self.reading])
        first = self.forecast.readings[0]
        same = (self.reading.zone, self.reading.signal) == (first.zone, first.signal)
        if not same or first.start <= max(self.now, self.reading.start):
            return self.forecast
        known = replace(self.reading, end=min(self.reading.end, first.start))
        return IntensitySeries([known, *self.forecast])

    def expected_over_epochs(self, rho: Sequence[float] | Floats) -> Floats:
        """Mean intensity of each coming epoch in gCO2e/kWh, for epochs that run back to back from now at `rho`.

        After the forecast its last value continues; where an epoch's length is unknown, each has the present intensity.
        `expected` must not be empty (NoReading).
        """
        expected = self.expected
        hours = np.zeros(len(rho)) if self.epoch_hours is None else self.epoch_hours * np.asarray(rho)
        ends = [self.now + timedelta(hours=float(end)) for end in np.cumsum(hours)]
        starts = [self.now, *ends[:-1]]
        means = [expected.mean(start, end).gco2e_per_kwh for start, end in zip(starts, ends, strict=True)]
        return np.array(means)
