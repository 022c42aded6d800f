"""Base classes and fields that all kinds of policy share: ρ, intensities, gate, smoothing and `on_missing`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Rho = Annotated[Number, Field(gt=0, le=1, description="Share of a full step's FLOPs")]
Intensity = Annotated[Number, Field(ge=0, description="In gCO2e/kWh")]
Hours = Annotated[Number, Field(gt=0, description="In hours")]

RESUME_SHARE = 0.9
HOURS_OF_A_YEAR = 8760


class PolicyModel(BaseModel):
    """Part of a policy: immutable, unknown fields forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FixedRho(PolicyModel):
    """ρ to use while no intensity is known."""

    rho: Rho


def _on_missing_form(value: object) -> str | None:
    if isinstance(value, str):
        return "rule"
    return "rho" if isinstance(value, Mapping | FixedRho) else None


OnMissing = Annotated[
    Annotated[Literal["fallback", "hold", "fail"], Tag("rule")] | Annotated[FixedRho, Tag("rho")],
    Discriminator(
        _on_missing_form,
        custom_error_type="on_missing",
        custom_error_message='expected "fallback", "hold", "fail" or an object such as {"rho": 0.6}',
    ),
]


class Gate(PolicyModel):
    """When a job may run: "none" at once, "defer" from the best window on, "pause" in the cleanest hours alone.

    A plan is followed where it saves more than the share `min_saving` of the emissions; without a deadline a job may
    end up to `max_delay_hours` later than its run length. In every mode a job pauses above `pause_above` gCO2e/kWh and
    resumes at `resume_below` or less. `pause_above` alone sets `resume_below` to 0.9 of itself; `resume_below` alone is
    an error.
    """

    mode: Literal["none", "defer", "pause"] = "none"
    min_saving: Annotated[Number, Field(ge=0, lt=1, description="Share of the emissions")] = 0.05
    max_delay_hours: Hours = 24.0
    pause_above: Annotated[Intensity, Field(gt=0)] | None = None
    resume_below: Intensity | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_resume_below(cls, given: object) -> object:
        if not isinstance(given, Mapping) or given.get("resume_below") is not None:
            return given
        above = given.get("pause_above")
        if isinstance(above, bool) or not isinstance(above, int | float):
            return given
        # The field validates it as an intensity.
        return {**given, "resume_below": max(0.0, above * RESUME_SHARE) if above < float("inf") else None}

    @model_validator(mode="after")
    def _check_thresholds(self) -> Self:
        if self.resume_below is None:
            return self
        if self.pause_above is None:
            raise build_field_error("resume_below", f"given {self.resume_below:g} alone: expected pause_above, too")
        if self.resume_below >= self.pause_above:
            expected = f"expected less than pause_above, which is {self.pause_above:g}"
            raise build_field_error("resume_below", f"given {self.resume_below:g}: {expected}")
        return self

    @property
    def resume_threshold(self) -> float:
        """`resume_below`, infinite where there are no thresholds."""
        return float("inf") if self.resume_below is None else self.resume_below


class Smoothing(PolicyModel):
    """Limits on the change of ρ from one epoch to the next.

    Changes below `deadband` are left out, a ρ is kept for at least `min_epochs` epochs, and ρ changes by at most
    `max_change` per epoch.
    """

    deadband: Annotated[Number, Field(ge=0, description="In ρ")] = 0.05
    min_epochs: Annotated[int, Field(ge=1, strict=True)] = 1
    max_change: Annotated[Number, Field(gt=0, le=1, description="In ρ, per epoch")] = 0.3


NO_SMOOTHING = Smoothing(deadband=0.0, min_epochs=1, max_change=1.0)


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


def build_field_error(field: str, message: str) -> PydanticCustomError:
    """Build an error between fields, whose context names the field: pydantic would report it on the whole model."""
    return PydanticCustomError("policy", "{message}", {"field": field, "message": message})
