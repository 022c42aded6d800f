"""The kinds of policy: each maps a carbon intensity to ρ, the share of a full step's FLOPs to spend."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

Rho = Annotated[
    float,
    Field(gt=0, le=1, strict=True, allow_inf_nan=False, description="Share of a full step's FLOPs"),
]
Intensity = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False, description="In gCO2e/kWh")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FixedRho(_Model):
    """The ρ to use while no intensity is known."""

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


class Policy(_Model, ABC):
    """A validated policy; `kind` tells which.

    `on_missing` says what to do without a reading: "fallback" takes ρ at the dirtiest intensity, "hold" the
    previous ρ, `{"rho": ...}` that one, and "fail" raises.
    """

    on_missing: OnMissing = "fallback"

    @abstractmethod
    def rho_at(self, intensity_gco2e_per_kwh: float) -> float:
        """ρ in (0, 1] at an intensity in gCO2e/kWh (at least 0)."""

    @abstractmethod
    def reason_at(self, intensity_gco2e_per_kwh: float) -> str:
        """Where that intensity stands in the policy, in words that follow on from "212 gCO2e/kWh"."""

    @property
    @abstractmethod
    def dirtiest_rho(self) -> float:
        """ρ at the highest intensity that the policy tells apart."""

    @abstractmethod
    def _rho_fields(self) -> list[tuple[str, float]]:
        """Each field that sets a ρ, with its value."""

    def lowest_rho(self) -> tuple[str, float]:
        """The smallest ρ that the policy can ever ask for, after the path of the field that sets it."""
        fields = self._rho_fields()
        if isinstance(self.on_missing, FixedRho):
            fields.append(("on_missing.rho", self.on_missing.rho))
        return min(fields, key=lambda field: field[1])

    def body(self) -> dict[str, object]:
        """The policy as JSON values, defaults spelt out; `parse_policy` reads the same policy from it."""
        return self.model_dump(mode="json", exclude_none=True)


class Constant(Policy):
    """The same ρ at every intensity."""

    kind: Literal["constant"]
    rho: Rho

    def rho_at(self, intensity_gco2e_per_kwh: float) -> float:
        """`rho`, whatever the intensity."""
        return self.rho

    def reason_at(self, intensity_gco2e_per_kwh: float) -> str:
        """That the intensity does not matter."""
        return "changes nothing under a constant policy"

    @property
    def dirtiest_rho(self) -> float:
        """`rho`."""
        return self.rho

    def _rho_fields(self) -> list[tuple[str, float]]:
        return [("rho", self.rho)]


class Step(_Model):
    """ρ up to and including an intensity in gCO2e/kWh; without `up_to`, at every higher one."""

    up_to: Intensity | None = None
    rho: Rho


class Steps(Policy):
    """ρ by steps: the first whose `up_to` is at least the intensity; only the last has no `up_to`."""

    kind: Literal["steps"]
    steps: Annotated[tuple[Step, ...], Field(json_schema_extra={"minItems": 1})]

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.steps:
            raise _fault("steps", "given none: expected at least one step")
        for index, step in enumerate(self.steps[:-1]):
            if step.up_to is None:
                raise _fault(f"steps[{index}].up_to", "missing: only the last step goes without")
        last = len(self.steps) - 1
        if self.steps[last].up_to is not None:
            raise _fault(f"steps[{last}].up_to", "the last step goes without, to hold at any intensity")
        bounds = [step.up_to for step in self.steps if step.up_to is not None]
        for index, (lower, upper) in enumerate(pairwise(bounds), start=1):
            if upper <= lower:
                raise _fault(f"steps[{index}].up_to", f"given {upper:g}: expected more than {lower:g}, the step before")
        return self

    def rho_at(self, intensity_gco2e_per_kwh: float) -> float:
        """ρ of the first step whose `up_to` is at least the intensity, else of the last."""
        return self._step_at(intensity_gco2e_per_kwh).rho

    def reason_at(self, intensity_gco2e_per_kwh: float) -> str:
        """Which step's bound the intensity keeps, or exceeds."""
        step = self._step_at(intensity_gco2e_per_kwh)
        if step.up_to is not None:
            return f"is at most {step.up_to:g}"
        if len(self.steps) == 1:
            return "falls in the only step"
        return f"is above {self.steps[-2].up_to:g}"

    @property
    def dirtiest_rho(self) -> float:
        """ρ of the last step."""
        return self.steps[-1].rho

    def _step_at(self, intensity_gco2e_per_kwh: float) -> Step:
        return next(
            (step for step in self.steps if step.up_to is not None and intensity_gco2e_per_kwh <= step.up_to),
            self.steps[-1],
        )

    def _rho_fields(self) -> list[tuple[str, float]]:
        return [(f"steps[{index}].rho", step.rho) for index, step in enumerate(self.steps)]


class Linear(Policy):
    """ρ falls in a straight line from `rho_max` at `clean` to `rho_min` at `dirty`; it is flat beyond."""

    kind: Literal["linear"]
    clean: Intensity
    dirty: Intensity
    rho_max: Rho
    rho_min: Rho

    @model_validator(mode="after")
    def _falling(self) -> Self:
        if self.dirty <= self.clean:
            raise _fault("dirty", f"given {self.dirty:g}: expected more than clean, which is {self.clean:g}")
        if self.rho_min > self.rho_max:
            raise _fault("rho_min", f"given {self.rho_min:g}: expected at most rho_max, which is {self.rho_max:g}")
        return self

    def rho_at(self, intensity_gco2e_per_kwh: float) -> float:
        """ρ = rho_max − (rho_max − rho_min) · (c − clean) / (dirty − clean), within [rho_min, rho_max]."""
        if intensity_gco2e_per_kwh <= self.clean:
            return self.rho_max
        if intensity_gco2e_per_kwh >= self.dirty:
            return self.rho_min
        share = (intensity_gco2e_per_kwh - self.clean) / (self.dirty - self.clean)
        # Rounding may lead past rho_min.
        return max(self.rho_min, self.rho_max - (self.rho_max - self.rho_min) * share)

    def reason_at(self, intensity_gco2e_per_kwh: float) -> str:
        """On which side of `clean` and `dirty` the intensity lies."""
        if intensity_gco2e_per_kwh <= self.clean:
            return f"is at most {self.clean:g}"
        if intensity_gco2e_per_kwh >= self.dirty:
            return f"is at least {self.dirty:g}"
        return f"lies between {self.clean:g} and {self.dirty:g}"

    @property
    def dirtiest_rho(self) -> float:
        """`rho_min`."""
        return self.rho_min

    def _rho_fields(self) -> list[tuple[str, float]]:
        return [("rho_min", self.rho_min)]


PolicyBody = Annotated[Constant | Steps | Linear, Field(discriminator="kind")]


def _fault(field: str, message: str) -> PydanticCustomError:
    """A fault between fields, which pydantic would place on the whole policy: the context names its field."""
    return PydanticCustomError("policy", "{message}", {"field": field, "message": message})
