"""Smooths ρ over epochs: deadband, minimum number of epochs, maximum change."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from greencore.arrays import Floats, Ints
from greencore.policy.kinds.policy import Smoothing

_NOTHING, _MIN_EPOCHS, _DEADBAND, _MAX_CHANGE, _RANGE = range(5)

# In floating point 0.65 − 0.6 is a little more than 0.05, and 0.6 − 0.55 a little less.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class PreviousRho:
    """ρ of the previous epoch, and the number of consecutive epochs that had it (at least 1)."""

    rho: float
    epochs: int


def smooth_rho(
    rho: float, previous: PreviousRho | None, smoothing: Smoothing, rho_range: tuple[float, float]
) -> tuple[float, str | None]:
    """Smooth the policy's `rho` for the next epoch; return the result and the reason of a change, None without one.

    The first epoch is not smoothed. A ρ is kept for `min_epochs` epochs, and where the change would be less than
    `deadband`; it moves by at most `max_change`, and stays within `rho_range` in any case.
    """
    if previous is None:
        return rho, None
    [result], [rule] = smooth_rhos(
        np.array([rho]), np.array([previous.rho]), np.array([previous.epochs]), smoothing, rho_range
    )
    if result == rho:
        return rho, None
    words = {
        _MIN_EPOCHS: f"a ρ is kept for {smoothing.min_epochs} epochs, this one has been for {previous.epochs}",
        _DEADBAND: f"the change is less than the deadband of {smoothing.deadband:g}",
        _MAX_CHANGE: f"ρ changes by {smoothing.max_change:g} an epoch at most",
        _RANGE: f"ρ stays within {rho_range[0]:.4g} to {rho_range[1]:.4g}",
    }
    return float(result), words[int(rule)]


def smooth_rhos(
    rho: Floats,
    previous_rho: Floats,
    epochs: Ints,
    smoothing: Smoothing,
    rho_range: tuple[ArrayLike, ArrayLike],
) -> tuple[Floats, Ints]:
    """Smooth ρ of many runs at once, each as `smooth_rho` does; return it with the rule that determined it.

    All arrays have one shape; `previous_rho` is NaN where there is none, and the result is NaN where `rho` is. The
    bounds of `rho_range` may be arrays, too.
    """
    change = rho - previous_rho
    early = epochs < smoothing.min_epochs
    small = np.abs(change) < smoothing.deadband - ROUNDING
    large = np.abs(change) > smoothing.max_change + ROUNDING
    rule = np.select([early, small, large], [_MIN_EPOCHS, _DEADBAND, _MAX_CHANGE], _NOTHING)
    moved = previous_rho + np.clip(change, -smoothing.max_change, smoothing.max_change)
    wanted = np.select([early | small, large], [previous_rho, moved], rho)
    within = np.clip(wanted, *rho_range)
    first = np.isnan(previous_rho)
    return np.where(first, rho, within), np.where(within != wanted, _RANGE, rule)
