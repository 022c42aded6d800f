"""Base classes of all kinds of policy."""

from abc import ABC, abstractmethod
from typing import Self

from pydantic import model_validator

from greencore.policy.kinds.fields import (
    NO_SMOOTHING,
    FixedRho,
    Gate,
    OnMissing,
    PolicyModel,
    Rho,
    Smoothing,
    build_field_error,
)


class Policy(PolicyModel, ABC):
    """A validated policy of some `kind`.

    `on_missing` decides where no intensity is known: "fallback" takes ρ at the dirtiest one, "hold" the previous ρ,
    `{"rho": ...}` that one, and "fail" raises. `gate` decides when to run, `smoothing` limits changes of ρ.
    """

    on_missing: OnMissing = "fallback"
    gate: Gate = Gate()
    smoothing: Smoothing = NO_SMOOTHING

    @property
    @abstractmethod
    def dirtiest_rho(self) -> float:
        """ρ at the highest intensities."""

    @abstractmethod
    def _rho_fields(self) -> list[tuple[str, float]]:
        """Fields that set a ρ, with their values; the lower of a pair first."""

    def lowest_rho(self) -> tuple[str, float]:
        """Return the path of the field with the policy's lowest ρ, and that ρ."""
        return min(self._all_rho_fields(), key=lambda field: field[1])

    @property
    def rho_range(self) -> tuple[float, float]:
        """Lowest and highest ρ of the policy, `on_missing` included."""
        values = [value for _, value in self._all_rho_fields()]
        return min(values), max(values)

    def to_json(self) -> dict[str, object]:
        """Return the policy as JSON values with its defaults; `parse_policy` reads the same policy from it."""
        return self.model_dump(mode="json", exclude_none=True)

    def _all_rho_fields(self) -> list[tuple[str, float]]:
        fixed = [("on_missing.rho", self.on_missing.rho)] if isinstance(self.on_missing, FixedRho) else []
        return self._rho_fields() + fixed


class RhoRangePolicy(Policy, ABC):
    """A policy whose ρ is within [`rho_min`, `rho_max`]."""

    rho_max: Rho
    rho_min: Rho

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.rho_min > self.rho_max:
            raise build_field_error(
                "rho_min", f"given {self.rho_min:g}: expected at most rho_max, which is {self.rho_max:g}"
            )
        return self

    @property
    def dirtiest_rho(self) -> float:
        """`rho_min`."""
        return self.rho_min

    def _rho_fields(self) -> list[tuple[str, float]]:
        return [("rho_min", self.rho_min), ("rho_max", self.rho_max)]
