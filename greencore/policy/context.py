"""What is known as an epoch begins: all that a policy may look at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from greencore.carbon.series import IntensitySeries, Reading
from greencore.policy.rho.smoothing import PreviousRho
from greencore.policy.rho.utility import DEFAULT_UTILITY, UtilityCurve

Floats = NDArray[np.float64]

ASSUMED_LOSS_PER_EPOCH = 0.5
EMPTY_SERIES = IntensitySeries()


@dataclass(frozen=True, kw_only=True)
class PolicyContext:
    """The grid and the run at `now` (aware), as an epoch is about to begin.

    `reading` is the newest intensity, `step` the step of the fallback chain that found it, `refused` why a stand-in was
    not taken where there is no reading; `window` holds the stored readings of the past and `forecast` what is expected
    from now on. `previous` is None at the first epoch, and `epochs_left` counts the one that begins. `epoch_hours` and
    `epoch_kwh` (PUE included) are those of an epoch at ρ = 1, None where nothing is known; `spent_gco2e` is what the
    run has emitted. `utility` is None until the first probe, `loss_per_epoch` (what an epoch at ρ = 1 takes off the
    loss) until there is a measurement. Raises ValueError, naming the field, for a figure out of range.
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
            raise ValueError(f"epochs_left is {self.epochs_left}: expected at least 1, the epoch that begins")
        for name in ("epoch_hours", "epoch_kwh", "spent_gco2e"):
            figure = getattr(self, name)
            if figure is not None and not 0 <= figure < float("inf"):
                raise ValueError(f"{name} is {figure}: expected a finite number that is at least 0")

    @property
    def curve(self) -> UtilityCurve:
        """The run's own curve or the default one, scaled to 1 at ρ = 1."""
        return (self.utility or DEFAULT_UTILITY).normalise()

    @property
    def expected(self) -> IntensitySeries:
        """The forecast, with the reading before it where it begins later, or in its place where it is empty."""
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
        """The mean intensity of each epoch to come in gCO2e/kWh, where they run back to back from now at these `rho`.

        Beyond the forecast its last value goes on; where an epoch's length is unknown, all are as at present.
        `expected` must not be empty (NoReading).
        """
        expected = self.expected
        hours = np.zeros(len(rho)) if self.epoch_hours is None else self.epoch_hours * np.asarray(rho)
        ends = [self.now + timedelta(hours=float(end)) for end in np.cumsum(hours)]
        starts = [self.now, *ends[:-1]]
        means = [expected.mean(start, end).gco2e_per_kwh for start, end in zip(starts, ends, strict=True)]
        return np.array(means)
