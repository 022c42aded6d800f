"""What a job would take and emit, on the wire: every figure with its interval and what it rests on."""

from datetime import datetime

from pydantic import BaseModel, Field

from greencore.carbon import Signal


class Figure(BaseModel):
    """An expected value, and the bounds between which it lies in about nine cases of ten."""

    expected: float
    low: float
    high: float

    @classmethod
    def of(cls, expected: float, spread: float) -> "Figure":
        """A value that may be `spread` times (at least 1) as large or as small."""
        return cls(expected=expected, low=expected / spread, high=expected * spread)


class WorkOut(BaseModel):
    """What is to be computed."""

    training_rows: int
    tokens_per_epoch: float
    full_flops: Figure = Field(description="All epochs with every tensor trained; 1 multiply-accumulate counts as 2")
    basis: str


class PaceOut(BaseModel):
    """How fast it is computed, at ρ = 1, and what that draws."""

    device: str | None = Field(description="Of the worker that would take it; null where none is alive")
    epoch_hours: Figure
    epoch_kwh: Figure = Field(description="Without what the site draws on top")
    outside_hours: float = Field(description="To load, to evaluate and to save, once a run")
    assumed: bool = Field(description="True where nothing was measured on this device yet")
    basis: str


class PlaceOut(BaseModel):
    """Where it would run, and what its intensity is."""

    zone: str
    reason: str
    live_workers: int
    signal: Signal
    gco2e_per_kwh: float | None = Field(description="In force now; null where nothing is known of the zone")
    source: str | None
    step: str | None = Field(description="Of the fallback chain: fresh, or what stands in for a fresh reading")
    estimated: bool
    expected_until: datetime | None = Field(description="How far the forecast reaches; null where there is none")
    sources: list[str] = Field(description="Behind what is expected")
    basis: str


class QueueOut(BaseModel):
    """What the zone's workers have to do first."""

    running: int
    ahead: int = Field(description="Jobs that wait and come before it; those that wait for a green hour are not in it")
    starts_at: datetime = Field(description="When a worker is expected to be free")


class RunOut(BaseModel):
    """One way to run the job."""

    starts_at: datetime
    ends_at: datetime
    hours: Figure = Field(description="Of computing, without the pauses between")
    rho: float = Field(description="The share of full fine-tuning's FLOPs that is computed, on the average")
    flops: Figure
    energy_kwh: Figure = Field(description="Without what the site draws on top")
    gco2e_per_kwh: float | None = Field(description="The mean of the hours in which it computes")
    emissions_gco2e: Figure | None = Field(description="PUE included; null where no intensity is known")
    meets_deadline: bool | None = Field(description="Null without a deadline")
    why: str


class SavingOut(BaseModel):
    """What the best window saves beside starting now; an estimate."""

    gco2e: float
    share: float


class BudgetOut(BaseModel):
    """Whether a budget can be kept."""

    given_gco2e: float
    smallest_gco2e: float | None = Field(description="With every epoch at rho_min; null where no intensity is known")
    can_be_kept: bool | None
    basis: str


class EstimateOut(BaseModel):
    """What a job would take, begun now or in the best window before its deadline. Nothing is queued."""

    now: RunOut
    best: RunOut = Field(description="As the policy's gate would have it; without a gate, in the best window of 24 h")
    saving: SavingOut | None
    work: WorkOut
    pace: PaceOut
    place: PlaceOut
    queue: QueueOut
    pue: float
    budget: BudgetOut | None = Field(description="Null for a policy without a budget")
    notes: list[str] = Field(description="What to bear in mind")
