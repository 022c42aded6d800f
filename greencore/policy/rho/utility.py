"""Utility curve: the value of a share ρ of an epoch's FLOPs, which budget and price policies weigh against gCO2e."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from greencore.arrays import Floats, Ints
from greencore.concave_curve import find_concave_hull

POINTS_STORED = 64
# Rounding error of slopes, relative to the steepest: a convex bend below it is accepted.
SLOPE_ROUNDING = 1e-9
# A point this close to a bound of ρ is dropped, since the slope between the two would be mostly rounding error.
SHORTEST_SEGMENT = 1e-6


@dataclass(frozen=True, eq=False)
class UtilityCurve:
    """Piecewise linear, concave, non-decreasing function of ρ, in any unit; immutable.

    `rho` [points] ascends within (0, 1], `value` [points] is finite; at least 2 points. Below the first point the
    first segment goes on straight, above the last the curve is flat. Raises ValueError where this does not hold.
    """

    rho: Floats
    value: Floats

    def __post_init__(self) -> None:
        for name in ("rho", "value"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.rho.ndim != 1 or self.rho.shape != self.value.shape or len(self.rho) < 2:
            raise ValueError(
                f"rho has the shape {self.rho.shape} and value {self.value.shape}: "
                "expected two lists of equal length, with at least 2 points"
            )
        if not (np.isfinite(self.rho).all() and np.isfinite(self.value).all()):
            raise ValueError("rho and value: expected finite numbers")
        if self.rho[0] <= 0 or self.rho[-1] > 1 or (np.diff(self.rho) <= 0).any():
            raise ValueError(f"rho runs from {self.rho[0]:g} to {self.rho[-1]:g}: expected it to ascend within (0, 1]")
        slopes = np.diff(self.value) / np.diff(self.rho)
        slack = SLOPE_ROUNDING * float(np.abs(slopes).max())
        if (slopes < -slack).any():
            raise ValueError("value falls as rho rises: expected it never to fall")
        if (np.diff(slopes) > slack).any():
            raise ValueError("value gets steeper as rho rises: expected a concave curve")

    @classmethod
    def from_points(cls, rho: ArrayLike, value: ArrayLike, *, points: int = POINTS_STORED) -> "UtilityCurve":
        """Build the concave hull of at most `points` of the given ones, with the first and the last.

        The kept points are evenly spaced along the curve, so that the hull is only a little below it. Raises ValueError
        where fewer than 2 points are given, or as the constructor does.
        """
        shares, values = np.asarray(rho, dtype=np.float64), np.asarray(value, dtype=np.float64)
        if shares.ndim != 1 or shares.shape != values.shape or len(shares) < 2:
            raise ValueError("expected two lists of equal length, with at least 2 points")
        kept = _evenly(shares, values, points)
        hull = find_concave_hull(shares, values, kept.tolist())
        return cls(shares[hull], values[hull])

    @classmethod
    def from_json(cls, body: Mapping[str, object]) -> "UtilityCurve":
        """Parse the JSON of `to_json`. Raises ValueError where it is no curve."""
        try:
            rho, value = (np.array(body[name], dtype=np.float64) for name in ("rho", "value"))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"a curve has two lists of numbers, rho and value: {error!r}") from error
        return cls(rho, value)

    def to_json(self) -> dict[str, list[float]]:
        """Return `{"rho": [...], "value": [...]}` with at most 64 points."""
        curve = self if len(self.rho) <= POINTS_STORED else UtilityCurve.from_points(self.rho, self.value)
        return {"rho": curve.rho.tolist(), "value": curve.value.tolist()}

    @property
    def slopes(self) -> Floats:
        """Slopes between the points [points - 1]; at least 0, never rising."""
        slopes = np.diff(self.value) / np.diff(self.rho)
        return np.maximum(np.minimum.accumulate(slopes), 0.0)

    def at(self, rho: ArrayLike) -> Floats:
        """Return the value at each ρ, in the shape of `rho`."""
        shares = np.asarray(rho, dtype=np.float64)
        below = np.minimum(shares - self.rho[0], 0.0) * self.slopes[0]
        values: Floats = np.interp(shares, self.rho, self.value) + below
        return values

    def clip(self, rho_min: float, rho_max: float) -> "UtilityCurve":
        """Return the curve from `rho_min` to `rho_max`, which become its first and last point.

        Raises ValueError unless 0 < rho_min < rho_max <= 1, at least a millionth apart.
        """
        if not 0 < rho_min < rho_min + SHORTEST_SEGMENT <= rho_max <= 1:
            raise ValueError(f"given ρ from {rho_min:g} to {rho_max:g}: expected a range within (0, 1]")
        inside = (self.rho > rho_min + SHORTEST_SEGMENT / 2) & (self.rho < rho_max - SHORTEST_SEGMENT / 2)
        rho = np.concatenate([[rho_min], self.rho[inside], [rho_max]])
        return UtilityCurve(rho, self.at(rho))

    def normalise(self) -> "UtilityCurve":
        """Return the curve scaled to 1 at ρ = 1; one that is 0 there becomes 0 throughout."""
        whole = float(self.at(1.0))
        return UtilityCurve(self.rho, self.value / whole if whole > 0 else np.zeros_like(self.value))


def _evenly(rho: Floats, value: Floats, points: int) -> Ints:
    """Return indices of at most `points` points, evenly spaced in the sum of relative ρ and relative value."""
    distance = (rho - rho[0]) / (rho[-1] - rho[0])
    if value[-1] > value[0]:
        distance = distance + (value - value[0]) / (value[-1] - value[0])
    nearest = np.searchsorted(distance, np.linspace(0.0, distance[-1], points))
    return np.unique(np.minimum(nearest, len(rho) - 1))


def _square_root(floor: float) -> UtilityCurve:
    # Evenly spaced in value, so that the steep start is resolved as finely as the rest.
    value = np.linspace(0.0, 1.0, POINTS_STORED)
    rho = floor + (1.0 - floor) * value**2
    rho[-1] = 1.0
    return UtilityCurve(rho, value)


DEFAULT_UTILITY = _square_root(1 / 3)
"""Utility curve assumed before a run's first probe: value(ρ) = √((ρ − ρ₀)/(1 − ρ₀)) with ρ₀ = 1/3, at 64 points.

ρ₀ is the forward pass alone, which trains nothing; the first FLOPs above it go to the most important tensors.
"""
