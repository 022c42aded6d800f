"""Response models of an estimate: each figure with its interval and basis."""

from datetime import datetime

from pydantic import BaseModel, Field

from api.row_model import RowModel
from greencore.carbon import Signal


class Figure(BaseModel):
    """An expected value, and the bounds of an interval that contains it in about nine cases of ten."""

    expected: float
    low: float
    high: float

    @classmethod
    def of(cls, expected: float, spread: float) -> "Figure":
        """Return a figure that may be `spread` times (at least 1) larger or smaller."""
        return cls(expected=expected, low=expected / spread, high=expected * spread)


class WorkOut(BaseModel):
    """Work to compute."""

    training_rows: int
    training_examples: int = Field(description="A conversation may have several, one for each learned turn at most")
    dropped_rows: int | None = Field(description="Rows of which nothing is learned; null if none was tokenised yet")
    tokens_per_epoch: float
    full_flops: Figure = Field(
        description="FLOPs of all epochs with every tensor trained; 1 multiply-accumulate counts as 2"
    )
    steps: int = Field(description="Optimiser steps of the run")
    recipe: str = Field(description="Batches, learning-rate schedule and optimiser, in words")
    basis: str


class PaceOut(RowModel):
    """Duration and energy of an epoch at ρ = 1."""

    device: str | None = Field(description="Device of the worker that would take the job; null if none is alive")
    epoch_hours: Figure
    epoch_kwh: Figure = Field(description="Before PUE")
    outside_hours: float = Field(description="Hours to load, evaluate and save, once a run")
    evaluation_hours: float = Field(description="Part of `outside_hours` that evaluations during training take")
    assumed: bool = Field(description="True if nothing was measured on this device yet")
    basis: str


class PlaceOut(RowModel):
    """Zone in which the job would run, and its intensity."""

    zone: str
    reason: str
    live_workers: int
    signal: Signal
    gco2e_per_kwh: float | None = Field(description="Intensity in force now; null if none is known")
    source: str | None
    step: str | None = Field(description="Step of the fallback chain: `fresh`, or the substitute for a fresh reading")
    estimated: bool
    expected_until: datetime | None = Field(description="End of the forecast; null without one")
    sources: list[str] = Field(description="Sources of the expected intensities")
    basis: str


class QueueOut(BaseModel):
    """Jobs that the zone's workers do first."""

    running: int
    ahead: int = Field(description="Waiting jobs that start before it, without those that wait for their gate")
    starts_at: datetime = Field(description="Expected time at which a worker is free")


class RunOut(RowModel):
    """A predicted run of the job."""

    starts_at: datetime
    ends_at: datetime
    hours: Figure = Field(description="Hours of computing, without pauses")
    rho: float = Field(description="Mean share of full fine-tuning's FLOPs that is computed")
    flops: Figure
    energy_kwh: Figure = Field(description="Before PUE")
    gco2e_per_kwh: float | None = Field(description="Mean intensity of the hours of computing")
    emissions_gco2e: Figure | None = Field(description="PUE included; null if no intensity is known")
    meets_deadline: bool | None = Field(description="Null without a deadline")
    why: str


class SavingOut(BaseModel):
    """Saving of the best window over starting now; an estimate."""

    gco2e: float
    share: float


class BudgetOut(BaseModel):
    """Feasibility of a budget."""

    given_gco2e: float
    smallest_gco2e: float | None = Field(
        description="Emissions with every epoch at rho_min; null if no intensity is known"
    )
    can_be_kept: bool | None
    basis: str


class MemoryOut(RowModel):
    """Peak memory of an optimiser step on the longest rows."""

    peak_bytes: int | None = Field(
        description="Null until a job with the same model, method and similar settings was prepared"
    )
    least_bytes: int | None = Field(
        description="Bytes of the weights, and where every tensor is trained of gradients and optimiser state: no step "
        "takes less; null until the model is measured"
    )
    device_bytes: int | None = Field(description="Memory of the largest device of a live worker; null without one")
    basis: str


class EstimateOut(BaseModel):
    """Predicted cost of a job, started now or in the best window before its deadline."""

    method: str = Field(description="Method of the job; for `auto` the one that is expected to be chosen")
    method_reason: str | None = Field(description="Reason of the choice for `auto`, null for any other method")
    now: RunOut
    best: RunOut = Field(
        description="Run in the window that the policy's gate chooses; without a gate, in the best one of 24 h"
    )
    saving: SavingOut | None
    work: WorkOut
    pace: PaceOut
    memory: MemoryOut
    place: PlaceOut
    queue: QueueOut
    pue: float
    budget: BudgetOut | None = Field(description="Null for a policy without a budget")
    notes: list[str] = Field(description="Remarks on the estimate")
