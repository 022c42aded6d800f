"""Policies by the present intensity alone: constant, steps and linear."""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from greencore.arrays import Floats
from greencore.policy.kinds.policy import Intensity, Policy, PolicyModel, Rho, RhoRangePolicy, build_field_error

MAX_STEPS = 100


class IntensityPolicy(Policy, ABC):
    """A policy whose ρ is a function of the present intensity in gCO2e/kWh (at least 0)."""

    @abstractmethod
    def rho_at_intensities(self, intensity_gco2e_per_kwh: Floats) -> Floats:
        """Return ρ in (0, 1] at each intensity, in the argument's shape."""

    @abstractmethod
    def describe_intensity(self, intensity_gco2e_per_kwh: float) -> str:
        """Describe an intensity by the policy's bounds, as a text that continues "212 gCO2e/kWh"."""

    def rho_at(self, intensity_gco2e_per_kwh: float) -> float:
        """Return ρ at one intensity, equal to that of `rho_at_intensities`."""
        return float(self.rho_at_intensities(np.array([intensity_gco2e_per_kwh]))[0])

    @property
    def dirtiest_rho(self) -> float:
        """ρ at the highest intensities."""
        return self.rho_at(np.inf)


class Constant(IntensityPolicy):
    """The same ρ at every intensity."""

    kind: Literal["constant"]
    rho: Rho

    def rho_at_intensities(self, intensity_gco2e_per_kwh: Floats) -> Floats:
        """Return `rho` at every intensity."""
        return np.full(intensity_gco2e_per_kwh.shape, self.rho, dtype=np.float64)

    def describe_intensity(self, intensity_gco2e_per_kwh: float) -> str:
        """Say that the intensity changes nothing."""
        return "changes nothing under a constant policy"

    def _rho_fields(self) -> list[tuple[str, float]]:
        return [("rho", self.rho)]


class Step(PolicyModel):
    """ρ up to and including an intensity in gCO2e/kWh; without `up_to`, at every higher one."""

    up_to: Intensity | None = None
    rho: Rho


class Steps(IntensityPolicy):
    """ρ by steps: the first whose `up_to` is at least the intensity; only the last has no `up_to`."""

    kind: Literal["steps"]
    steps: Annotated[tuple[Step, ...], Field(json_schema_extra={"minItems": 1, "maxItems": MAX_STEPS})]

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if not self.steps:
            raise build_field_error("steps", "given none: expected at least one step")
        for index, step in enumerate(self.steps[:-1]):
            if step.up_to is None:
                raise build_field_error(f"steps[{index}].up_to", "missing: only the last step goes without")
        last = len(self.steps) - 1
        if self.steps[last].up_to is not None:
            raise build_field_error(f"steps[{last}].up_to", "the last step goes without, to hold at any intensity")
        for index, (lower, upper) in enumerate(pairwise(self._bounds()), start=1):
            if upper <= lower:
                raise build_field_error(
                    f"steps[{index}].up_to", f"given {upper:g}: expected more than {lower:g}, the step before"
                )
        return self

    def rho_at_intensities(self, intensity_gco2e_per_kwh: Floats) -> Floats:
        """Return ρ of the first step whose `up_to` is at least the intensity, else of the last step."""
        step = np.searchsorted(np.array(self._bounds()), intensity_gco2e_per_kwh, side="left")
        return np.array([step.rho for step in self.steps])[step]

    def describe_intensity(self, intensity_gco2e_per_kwh: float) -> str:
        """Name the lowest bound at or above the intensity, else the highest bound."""
        bounds = self._bounds()
        if not bounds:
            return "falls in the only step"
        kept = next((bound for bound in bounds if intensity_gco2e_per_kwh <= bound), None)
        return f"is above {bounds[-1]:g}" if kept is None else f"is at most {kept:g}"

    def _bounds(self) -> list[float]:
        return [step.up_to for step in self.steps if step.up_to is not None]

    def _rho_fields(self) -> list[tuple[str, float]]:
        return [(f"steps[{index}].rho", step.rho) for index, step in enumerate(self.steps)]


class Linear(RhoRangePolicy, IntensityPolicy):
    """ρ falls in a straight line from `rho_max` at `clean` to `rho_min` at `dirty`; it is flat beyond."""

    kind: Literal["linear"]
    clean: Intensity
    dirty: Intensity

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.dirty <= self.clean:
            raise build_field_error("dirty", f"given {self.dirty:g}: expected more than clean, which is {self.clean:g}")
        return self

    def rho_at_intensities(self, intensity_gco2e_per_kwh: Floats) -> Floats:
        """ρ = rho_max − (rho_max − rho_min) · (c − clean) / (dirty − clean), within [rho_min, rho_max]."""
        within = np.clip(intensity_gco2e_per_kwh, self.clean, self.dirty)
        share = (within - self.clean) / (self.dirty - self.clean)
        # Rounding may lead below rho_min, or miss it at `dirty`.
        falling = np.maximum(self.rho_min, self.rho_max - (self.rho_max - self.rho_min) * share)
        return np.where(within >= self.dirty, self.rho_min, falling)

    def describe_intensity(self, intensity_gco2e_per_kwh: float) -> str:
        """Compare the intensity to `clean` and `dirty`."""
        if intensity_gco2e_per_kwh <= self.clean:
            return f"is at most {self.clean:g}"
        if intensity_gco2e_per_kwh >= self.dirty:
            return f"is at least {self.dirty:g}"
        return f"is between {self.clean:g} and {self.dirty:g}"
