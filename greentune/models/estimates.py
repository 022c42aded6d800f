"""What a job would take and emit."""

from datetime import datetime

from greentune.models.answer import Answer, Signal


class Figure(Answer):
    """An expected value, and the bounds between which it lies in about nine cases of ten."""

    expected: float
    low: float
    high: float


class Work(Answer):
    """What is to be computed."""

    training_rows: int
    tokens_per_epoch: float
    full_flops: Figure
    """All epochs with every tensor trained; 1 multiply-accumulate counts as 2"""
    basis: str


class Pace(Answer):
    """How fast it is computed, at ρ = 1, and what that draws."""

    device: str | None
    """Of the worker that would take it; None where none is alive"""
    epoch_hours: Figure
    epoch_kwh: Figure
    """Without what the site draws on top"""
    outside_hours: float
    """To load, to evaluate and to save, once a run"""
    assumed: bool
    """True where nothing was measured on this device yet"""
    basis: str


class Place(Answer):
    """Where it would run, and what its intensity is."""

    zone: str
    reason: str
    live_workers: int
    signal: Signal
    gco2e_per_kwh: float | None
    """In force now; None where nothing is known of the zone"""
    source: str | None
    step: str | None
    """Of the fallback chain: fresh, or what stands in for a fresh reading"""
    estimated: bool
    expected_until: datetime | None
    """How far the forecast reaches; None where there is none"""
    sources: list[str]
    """Behind what is expected"""
    basis: str


class Queue(Answer):
    """What the zone's workers have to do first."""

    running: int
    ahead: int
    """Jobs that wait and come before it; those that wait for a green hour are not in it"""
    starts_at: datetime
    """When a worker is expected to be free"""


class Run(Answer):
    """One way to run the job."""

    starts_at: datetime
    ends_at: datetime
    hours: Figure
    """Of computing, without the pauses between"""
    rho: float
    """The share of full fine-tuning's FLOPs that is computed, on the average"""
    flops: Figure
    energy_kwh: Figure
    """Without what the site draws on top"""
    gco2e_per_kwh: float | None
    """The mean of the hours in which it computes"""
    emissions_gco2e: Figure | None
    """PUE included; None where no intensity is known"""
    meets_deadline: bool | None
    """None without a deadline"""
    why: str


class Saving(Answer):
    """What the best window saves beside starting now; an estimate."""

    gco2e: float
    share: float


class Budget(Answer):
    """Whether a budget can be kept."""

    given_gco2e: float
    smallest_gco2e: float | None
    """With every epoch at rho_min; None where no intensity is known"""
    can_be_kept: bool | None
    basis: str


class Estimate(Answer):
    """What a job would take, begun now or in the best window before its deadline. Nothing is queued."""

    now: Run
    best: Run
    """As the policy's gate would have it; without a gate, in the best window of 24 h"""
    saving: Saving | None
    work: Work
    pace: Pace
    place: Place
    queue: Queue
    pue: float
    budget: Budget | None
    """None for a policy without a budget"""
    notes: list[str]
    """What to bear in mind"""
