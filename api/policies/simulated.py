"""Response models of a simulation: its result, data and assumptions."""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.row_model import RowModel
from greencore.carbon import EmissionFactors, IntensitySeries, Signal
from greencore.policy import BacktestResult, Policy
from greencore.policy.gate.forecasts import ForecastKind
from greencore.policy.models import Budget, Price

FORECAST_DESCRIPTIONS: dict[ForecastKind, str] = {
    "own": "the gate plans by our own forecast, updated every hour from readings of the hours before",
    "persistence": "the gate plans as if each hour were like the same hour of the day before",
    "perfect": "the gate knows the future: the saving of a perfect forecast, which no real one reaches",
}


class DecisionOut(RowModel):
    """Action of the run from a time on, and its reason."""

    time: datetime
    intensity: float = Field(description="In gCO2e/kWh")
    action: str = Field(description="run, wait, pause, epoch, end or finish")
    rho: float | None = Field(description="ρ of the epoch that begins")
    reason: str


class Quantiles(BaseModel):
    """Quantiles of a figure over the starts: 5, 50 and 95 % of the starts have at most this."""

    p05: float
    p50: float
    p95: float


class SpreadOut(BaseModel):
    """Distribution of the figures over the starts."""

    emissions_g: Quantiles
    less_work_saving: Quantiles
    moved_in_time_saving: Quantiles


class SimulationBasis(BaseModel):
    """Data and assumptions of a simulation."""

    model_config = ConfigDict(populate_by_name=True)

    estimated: Literal[True] = Field(default=True, description="Always true, since no run was metered")
    zone: str | None
    sources: list[str]
    signal: Signal
    emission_factors: list[EmissionFactors]
    from_: datetime = Field(alias="from")
    to: datetime
    readings: int
    estimated_readings: int = Field(description="Number of readings that are themselves estimates")
    covered_share: float = Field(description="Share of that time within a reading; a gap takes the reading before it")
    forecast: ForecastKind
    assumptions: list[str]


class SimulationOut(RowModel):
    """Simulated emissions of a policy and of the runs it is compared with; means over all starts."""

    emissions_g: float = Field(description="Under the policy, in gCO2e")
    baseline_g: float = Field(description="At ρ = 1, started at once, without a pause")
    constant_g: float = Field(description="With the same total FLOPs at a constant ρ, started at once")
    oracle_g: float = Field(description="With the same total FLOPs in the cleanest hours before the deadline")
    less_work_saving: float = Field(description="(baseline − constant) / baseline")
    moved_in_time_saving: float = Field(description="(constant − emissions) / baseline")
    oracle_share: float | None = Field(description="Share of the oracle's saving by timing that was reached")
    work_share: float = Field(description="Share of the baseline's FLOPs")
    epochs_run: float = Field(description="Fewer than requested if a budget was used up")
    on_time_share: float = Field(description="Share of the starts that met the deadline")
    starts: int
    finish: datetime | None = Field(description="End of the run of a single start")
    spread: SpreadOut | None = Field(description="Distribution over many starts")
    decisions: list[DecisionOut] = Field(description="Decisions in the run of a single start")
    basis: SimulationBasis

    @classmethod
    def of(
        cls,
        result: BacktestResult,
        series: IntensitySeries,
        *,
        policy: Policy,
        zone: str | None,
        forecast: ForecastKind,
        deadline_hours: float | None,
        power_w: float,
        idle_power_w: float,
    ) -> "SimulationOut":
        """Build from a backtest's result, and its readings and arguments."""
        spread, readings = result.spread, series.readings
        start, end = readings[0].start, readings[-1].end
        factors = sorted({reading.emission_factors for reading in readings})
        basis = SimulationBasis(
            zone=zone,
            sources=sorted({reading.source for reading in readings}),
            signal=readings[0].signal,
            emission_factors=factors,
            from_=start,
            to=end,
            readings=len(readings),
            estimated_readings=sum(reading.estimated for reading in readings),
            covered_share=series.mean(start, end).covered_share,
            forecast=forecast,
            assumptions=list(_assumptions(policy, factors, forecast, deadline_hours, power_w, idle_power_w)),
        )
        return cls.from_row(
            result,
            spread=spread and {name: _quantiles(getattr(spread, name)) for name in SpreadOut.model_fields},
            decisions=[DecisionOut.from_row(decision) for decision in result.decisions],
            basis=basis,
        )


def _quantiles(low_middle_high: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(Quantiles.model_fields, low_middle_high, strict=True))


def _assumptions(
    policy: Policy,
    factors: list[EmissionFactors],
    forecast: ForecastKind,
    deadline_hours: float | None,
    power_w: float,
    idle_power_w: float,
) -> Iterator[str]:
    yield f"{power_w:g} W while it computes, whatever ρ, and {idle_power_w:g} W while it waits; the site draws no more"
    yield "an epoch at ρ takes that share of its time at ρ = 1, and a pause costs nothing"
    if policy.gate.mode != "none":
        yield FORECAST_DESCRIPTIONS[forecast]
        if deadline_hours is None:
            delay = policy.gate.max_delay_hours
            yield f"without a deadline a run may end {delay:g} h later than its length at the policy's highest ρ"
    if isinstance(policy, Budget | Price):
        yield "the importance per FLOP follows the default curve, since no run has been probed"
    if len(factors) > 1:
        yield "readings with direct and with life-cycle emission factors are mixed"
