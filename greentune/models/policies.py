"""Stored policies, and what a policy would have emitted on a grid's past."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from greentune.models.answer import Answer, EmissionFactors, Signal


class Policy(Answer):
    """The newest version of a named policy; jobs keep the version that they were submitted with."""

    name: str
    version: int
    policy: dict[str, Any]
    created_at: datetime


class Decision(Answer):
    """What the run did from a time on, and why."""

    time: datetime
    intensity: float
    """In gCO2e/kWh"""
    action: str
    """run, wait, pause, epoch, end or finish"""
    rho: float | None
    """Of the epoch that begins"""
    reason: str


class Quantiles(Answer):
    """How one figure differs from start to start: 5, 50 and 95 % of the starts have at most this."""

    p05: float
    p50: float
    p95: float


class Spread(Answer):
    """How the starts differ."""

    emissions_g: Quantiles
    less_work_saving: Quantiles
    moved_in_time_saving: Quantiles


class SimulationBasis(Answer):
    """What a simulation rests on."""

    estimated: Literal[True]
    """All of it: no run was metered"""
    zone: str | None
    sources: list[str]
    signal: Signal
    emission_factors: list[EmissionFactors]
    from_: datetime = Field(alias="from")
    to: datetime
    readings: int
    estimated_readings: int
    """Those that are themselves estimates"""
    covered_share: float
    """Share of that time within a reading; the rest takes the one before it"""
    forecast: Literal["own", "persistence", "perfect"]
    assumptions: list[str]


class Simulation(Answer):
    """What a policy would have emitted, beside what it is compared with; means where there are many starts."""

    emissions_g: float
    """Under the policy, in gCO2e"""
    baseline_g: float
    """At ρ = 1, begun at once, without a pause"""
    constant_g: float
    """With the same total FLOPs at a constant ρ, begun at once"""
    oracle_g: float
    """With the same total FLOPs in the cleanest hours before the deadline"""
    less_work_saving: float
    """(baseline − constant) / baseline"""
    moved_in_time_saving: float
    """(constant − emissions) / baseline"""
    oracle_share: float | None
    """Of the oracle's saving by timing, the share that was reached"""
    work_share: float
    """Of the baseline's FLOPs"""
    epochs_run: float
    """Fewer than asked for where a budget was used up"""
    on_time_share: float
    """Of the starts"""
    starts: int
    finish: datetime | None
    """Of a single start"""
    spread: Spread | None
    """Of many starts"""
    decisions: list[Decision]
    """Of a single start"""
    basis: SimulationBasis
