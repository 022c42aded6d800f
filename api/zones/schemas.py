"""Response models of zones: state, intensity in force, forecast and history."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from api.row_model import RowModel
from greencore.carbon import EmissionFactors, Reading, Signal
from greencore.carbon.fallback import ResolvedIntensity
from greencore.carbon.forecasting.own_forecast import SOURCE as OWN_FORECAST
from store.tables import Provider

AVERAGE_OR_MARGINAL = "Intensity of the grid's average, or of the plant that another kWh would start"
LIFECYCLE_OR_DIRECT = "Whether the life cycle of plants and fuel is included, or only direct emissions"
MODELLED = "True if the value was modelled or forecast instead of measured"


class ReadingOut(RowModel):
    """The intensity of one interval, in gCO2e/kWh."""

    start: datetime
    end: datetime
    gco2e_per_kwh: float
    source: str
    estimated: bool = Field(description=MODELLED)
    emission_factors: EmissionFactors = Field(description=LIFECYCLE_OR_DIRECT)


class IntensityOut(RowModel):
    """Intensity in force in a zone, and the step of the fallback chain that gave it."""

    zone: str
    gco2e_per_kwh: float
    step: Literal["fresh", "forecast", "stale", "yesterday", "last week", "static"] = Field(
        description="`fresh` if a reading covers this time; else the substitute for one"
    )
    source: str = Field(description="Source of the reading, preceded by the step unless that is `fresh`")
    signal: Signal = Field(description=AVERAGE_OR_MARGINAL)
    emission_factors: EmissionFactors = Field(description=LIFECYCLE_OR_DIRECT)
    estimated: bool = Field(description="False only if a measured reading covers this time")
    start: datetime = Field(description="Start of the reading's interval")
    end: datetime
    age_seconds: float = Field(description="Seconds since `start`")
    fetched_at: datetime

    @classmethod
    def of(cls, known: ResolvedIntensity, *, zone: str, now: datetime) -> "IntensityOut":
        """Build from the result of the fallback chain at `now`."""
        return cls.from_row(
            known.reading,
            zone=zone,
            step=known.step,
            source=known.source,
            estimated=known.estimated,
            age_seconds=known.reading.age_seconds(now),
        )


class ForecastReach(BaseModel):
    """Creation time and end of a stored forecast."""

    made_at: datetime
    until: datetime


class ProviderOut(RowModel):
    """State of the source of a zone's intensity."""

    source: str = Field(description="Kind of the source at the last request")
    last_success_at: datetime | None = Field(description="Null if it has never answered")
    failures_in_a_row: int = Field(description="Failures since it last answered")
    last_failure_at: datetime | None
    fault: str | None = Field(description="Error of the last failure; null if it has answered since")

    @classmethod
    def of(cls, provider: Provider) -> "ProviderOut":
        """Build from a stored provider state."""
        failures = provider.consecutive_failures
        return cls.from_row(provider, failures_in_a_row=failures, fault=provider.last_error if failures else None)


class ZoneOut(BaseModel):
    """A configured zone; values that are not known yet are null."""

    zone: str
    signal: Signal | None = Field(description=AVERAGE_OR_MARGINAL)
    newest: ReadingOut | None = Field(description="Last stored reading that has begun")
    age_seconds: float | None = Field(description="Seconds since the start of that reading")
    forecast: ForecastReach | None = Field(description="Null if none extends beyond the present")
    workers: int = Field(description="Number of live training workers in the zone")
    provider: ProviderOut | None = Field(description="Null if its source has not been asked yet")


class ForecastOut(BaseModel):
    """Forecast of a zone; empty if nothing is stored."""

    zone: str
    signal: Signal | None = Field(description=AVERAGE_OR_MARGINAL)
    made_at: datetime | None = Field(description="Creation time of the newest part")
    provider_until: datetime | None = Field(
        description="End of the provider's forecast; the rest, or all of it if this is null, is our own, made from "
        "stored readings"
    )
    until: datetime | None = Field(description="End of the forecast")
    data: list[ReadingOut]

    @classmethod
    def of(cls, zone: str, signal: Signal | None, expected: Sequence[Reading]) -> "ForecastOut":
        """The stored readings of a forecast, earliest first."""
        provided = [reading.end for reading in expected if reading.source != OWN_FORECAST]
        return cls(
            zone=zone,
            signal=signal,
            made_at=max((reading.fetched_at for reading in expected), default=None),
            provider_until=max(provided, default=None),
            until=expected[-1].end if expected else None,
            data=[ReadingOut.from_row(reading) for reading in expected],
        )


class HistoryOut(BaseModel):
    """Stored readings of a zone, earliest first; `covered_share` is the share of the requested time within one."""

    zone: str
    signal: Signal | None = Field(description=AVERAGE_OR_MARGINAL)
    covered_share: float = Field(description="In [0, 1]")
    data: list[ReadingOut]
