"""Estimate of a job: time, energy and emissions."""

from datetime import datetime

from greentune.models.answer import Answer, Signal


class Figure(Answer):
    """An expected value with its interval of about 90 %."""

    expected: float
    low: float
    high: float


class Work(Answer):
    """The work to be computed."""

    training_rows: int
    tokens_per_epoch: float
    full_flops: Figure
    """FLOPs of all epochs with every tensor trained; 1 multiply-accumulate counts as 2"""
    basis: str


class Pace(Answer):
    """Time and energy of the work at ρ = 1."""

    device: str | None
    """Device of the worker that would claim the job; None without a live worker"""
    epoch_hours: Figure
    epoch_kwh: Figure
    """Before PUE"""
    outside_hours: float
    """Hours of loading, evaluating and saving, once a run"""
    assumed: bool
    """True where the device has no measurements yet"""
    basis: str


class Place(Answer):
    """The zone in which the job would run, and its intensity."""

    zone: str
    reason: str
    live_workers: int
    signal: Signal
    gco2e_per_kwh: float | None
    """Current intensity; None where it is not known"""
    source: str | None
    step: str | None
    """Step of the fallback chain: fresh, or what replaces a fresh reading"""
    estimated: bool
    expected_until: datetime | None
    """End of the forecast; None without one"""
    sources: list[str]
    """Sources of the forecast"""
    basis: str


class Queue(Answer):
    """Jobs of the zone's workers before this one."""

    running: int
    ahead: int
    """Waiting jobs that come first, without those that wait for their gate"""
    starts_at: datetime
    """Expected time at which a worker is free"""


class Run(Answer):
    """One schedule of the job."""

    starts_at: datetime
    ends_at: datetime
    hours: Figure
    """Hours of computing, without pauses"""
    rho: float
    """Mean share of full fine-tuning's FLOPs"""
    flops: Figure
    energy_kwh: Figure
    """Before PUE"""
    gco2e_per_kwh: float | None
    """Mean intensity of the hours of computing"""
    emissions_gco2e: Figure | None
    """Including PUE; None where no intensity is known"""
    meets_deadline: bool | None
    """None without a deadline"""
    why: str


class Saving(Answer):
    """Estimated saving of the best window compared with starting now."""

    gco2e: float
    share: float


class Budget(Answer):
    """Feasibility of a budget."""

    given_gco2e: float
    smallest_gco2e: float | None
    """Emissions with every epoch at rho_min; None where no intensity is known"""
    can_be_kept: bool | None
    basis: str


class Estimate(Answer):
    """Estimate of a job, started now or in the best window before its deadline; nothing is queued."""

    now: Run
    best: Run
    """Schedule of the policy's gate; without a gate, the best window of 24 h"""
    saving: Saving | None
    work: Work
    pace: Pace
    place: Place
    queue: Queue
    pue: float
    budget: Budget | None
    """None for a policy without a budget"""
    notes: list[str]
    """Limitations of the estimate"""
