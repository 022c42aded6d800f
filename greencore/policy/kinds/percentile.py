"""Percentile policy: ρ by the intensity's rank among recent readings."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from greencore.arrays import Floats
from greencore.carbon.series import IntensitySeries
from greencore.policy.kinds.policy import HOURS_OF_A_YEAR, Hours, Number, RhoRangePolicy


class Percentile(RhoRangePolicy):
    """ρ falls from `rho_max` to `rho_min` as the intensity rises through the last `window_hours`."""

    kind: Literal["percentile"]
    window_hours: Annotated[Hours, Field(le=HOURS_OF_A_YEAR)]
    gamma: Annotated[Number, Field(gt=0, description="1 is a straight line, more keeps ρ high for longer")] = 1.0

    def rho_at_ranks(self, rank: Floats) -> Floats:
        """Return ρ = rho_max − (rho_max − rho_min) · rank^gamma at each rank in [0, 1], in the argument's shape."""
        falling = np.maximum(self.rho_min, self.rho_max - (self.rho_max - self.rho_min) * np.power(rank, self.gamma))
        return np.where(rank >= 1, self.rho_min, falling)

    def rho_at_rank(self, rank: float) -> float:
        """Return ρ at one rank, equal to that of `rho_at_ranks`."""
        return float(self.rho_at_ranks(np.array([rank]))[0])

    def rank(self, intensity_gco2e_per_kwh: float, window: IntensitySeries, now: datetime) -> float | None:
        """Rank of the intensity in [0, 1] among the readings of the `window_hours` before `now`; None without any.

        The rank is the share of the time that was cleaner, plus half of the time of equal intensity: 0 where all was
        dirtier, 1 where all was cleaner, 1/2 in a flat window. Each reading counts by its time within the window, the
        present one by its time up to `now`.
        """
        values, hours = self._within(window, now)
        if not len(values):
            return None
        cleaner = np.where(values < intensity_gco2e_per_kwh, 1.0, 0.0)
        same = np.where(values == intensity_gco2e_per_kwh, 0.5, 0.0)
        return float((hours * (cleaner + same)).sum() / hours.sum())

    def covered_hours(self, window: IntensitySeries, now: datetime) -> float:
        """Hours of the window that readings cover."""
        return float(self._within(window, now)[1].sum())

    def _within(self, window: IntensitySeries, now: datetime) -> tuple[Floats, Floats]:
        begin = now - timedelta(hours=self.window_hours)
        hours = [(min(r.end, now) - max(r.start, begin)) / timedelta(hours=1) for r in window]
        held = [(r.gco2e_per_kwh, length) for r, length in zip(window, hours, strict=True) if length > 0]
        pairs = np.array(held, dtype=np.float64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]
