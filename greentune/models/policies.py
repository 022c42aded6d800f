"""Stored policies, and simulations of policies on recorded intensities."""

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
    """Action of the simulated run from a time on, with its reason."""

    time: datetime
    intensity: float
    """In gCO2e/kWh"""
    action: str
    """run, wait, pause, epoch, end or finish"""
    rho: float | None
    """ρ of the epoch that begins"""
    reason: str


class Quantiles(Answer):
    """5 %, 50 % and 95 % quantiles of a figure over the starts."""

    p05: float
    p50: float
    p95: float


class Spread(Answer):
    """Distribution of the figures over the starts."""

    emissions_g: Quantiles
    less_work_saving: Quantiles
    moved_in_time_saving: Quantiles


class SimulationBasis(Answer):
    """Basis of a simulation."""

    estimated: Literal[True]
    """Always true: no run was metered"""
    zone: str | None
    sources: list[str]
    signal: Signal
    emission_factors: list[EmissionFactors]
    from_: datetime = Field(alias="from")
    to: datetime
    readings: int
    estimated_readings: int
    """Number of readings that are estimates"""
    covered_share: float
    """Share of the time that readings cover; the rest takes the reading before it"""
    forecast: Literal["own", "persistence", "perfect"]
    assumptions: list[str]


class Simulation(Answer):
    """Simulated emissions of a policy and of its baselines; means over several starts."""

    emissions_g: float
    """Emissions of the policy, in gCO2e"""
    baseline_g: float
    """Emissions at ρ = 1, started at once, without a pause"""
    constant_g: float
    """Emissions of the same FLOPs at a constant ρ, started at once"""
    oracle_g: float
    """Emissions of the same FLOPs in the cleanest hours before the deadline"""
    less_work_saving: float
    """(baseline − constant) / baseline"""
    moved_in_time_saving: float
    """(constant − emissions) / baseline"""
    oracle_share: float | None
    """Achieved share of the oracle's saving by timing"""
    work_share: float
    """Share of the baseline's FLOPs"""
    epochs_run: float
    """Fewer than requested where a budget was used up"""
    on_time_share: float
    """Share of the starts that met the deadline"""
    starts: int
    finish: datetime | None
    """End of a single start"""
    spread: Spread | None
    """None for a single start"""
    decisions: list[Decision]
    """Decisions of a single start"""
    basis: SimulationBasis
