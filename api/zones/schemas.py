"""The grid on the wire: what is known of each zone, its intensity now, and its readings behind and ahead."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from greencore.carbon import EmissionFactors, IntensitySeries, Reading, Signal
from greencore.carbon.fallback import ResolvedIntensity
from greencore.carbon.forecasting.own_forecast import SOURCE as OWN_FORECAST
from store.tables import Provider

AVERAGE_OR_MARGINAL = "Of the grid's average, or of the plant that another kWh would start"
LIFECYCLE_OR_DIRECT = "Whether building the plants and bringing the fuel counts, or only what they burn"
MODELLED = "True where the value was modelled or forecast instead of measured"


class ReadingOut(BaseModel):
    """The intensity of one interval, in gCO2e/kWh."""

    start: datetime
    end: datetime
    gco2e_per_kwh: float
    source: str
    estimated: bool = Field(description=MODELLED)
    emission_factors: EmissionFactors = Field(description=LIFECYCLE_OR_DIRECT)

    @classmethod
    def of(cls, reading: Reading) -> "ReadingOut":
        """As stored."""
        return cls(
            start=reading.start,
            end=reading.end,
            gco2e_per_kwh=reading.gco2e_per_kwh,
            source=reading.source,
            estimated=reading.estimated,
            emission_factors=reading.emission_factors,
        )


class IntensityOut(BaseModel):
    """The intensity in force in a zone, and how it was found."""

    zone: str
    gco2e_per_kwh: float
    step: Literal["fresh", "forecast", "stale", "yesterday", "last week", "static"] = Field(
        description="Fresh where a reading covers this time; else what stands in for one"
    )
    source: str = Field(description="Of the reading, after the step where that is not fresh")
    signal: Signal = Field(description=AVERAGE_OR_MARGINAL)
    emission_factors: EmissionFactors = Field(description=LIFECYCLE_OR_DIRECT)
    estimated: bool = Field(description="False only where a measured reading covers this time")
    start: datetime = Field(description="Of the interval that the reading describes")
    end: datetime
    age_seconds: float = Field(description="Since that start")
    fetched_at: datetime

    @classmethod
    def of(cls, known: ResolvedIntensity, *, zone: str, now: datetime) -> "IntensityOut":
        """What the fallback chain found, as it stands at `now`."""
        reading = known.reading
        return cls(
            zone=zone,
            gco2e_per_kwh=reading.gco2e_per_kwh,
            step=known.step,
            source=known.source,
            signal=reading.signal,
            emission_factors=reading.emission_factors,
            estimated=known.estimated,
            start=reading.start,
            end=reading.end,
            age_seconds=reading.age_seconds(now),
            fetched_at=reading.fetched_at,
        )


class ForecastReach(BaseModel):
    """When a stored forecast was made, and how far it reaches."""

    made_at: datetime
    until: datetime


class ProviderOut(BaseModel):
    """How the source of a zone has answered so far."""

    source: str = Field(description="Its kind, as it was asked last")
    last_success_at: datetime | None = Field(description="Null where it has never answered")
    failures_in_a_row: int = Field(description="Since it last answered")
    last_failure_at: datetime | None
    fault: str | None = Field(description="Of the last failure; null where it has answered since")

    @classmethod
    def of(cls, provider: Provider) -> "ProviderOut":
        """As stored."""
        return cls(
            source=provider.source,
            last_success_at=provider.last_success_at,
            failures_in_a_row=provider.consecutive_failures,
            last_failure_at=provider.last_failure_at,
            fault=provider.last_error if provider.consecutive_failures else None,
        )


class ZoneOut(BaseModel):
    """A zone that this service knows; what is not known yet is null."""

    zone: str
    signal: Signal | None = Field(description=AVERAGE_OR_MARGINAL)
    newest: ReadingOut | None = Field(description="The last stored reading that has begun")
    age_seconds: float | None = Field(description="Since the start of that reading")
    forecast: ForecastReach | None = Field(description="Null where none reaches beyond the present")
    workers: int = Field(description="Training workers that are alive there")
    provider: ProviderOut | None = Field(description="Null where its source has not been asked yet")


class ForecastOut(BaseModel):
    """What is expected of a zone; empty where nothing is stored."""

    zone: str
    signal: Signal | None = Field(description=AVERAGE_OR_MARGINAL)
    made_at: datetime | None = Field(description="When the newest part was made")
    provider_until: datetime | None = Field(
        description="Where the provider's forecast ends; from there on, or all of it where this is null, it is our "
        "own, made from stored readings"
    )
    until: datetime | None = Field(description="Where all of it ends")
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
            data=[ReadingOut.of(reading) for reading in expected],
        )


class HistoryOut(BaseModel):
    """Stored readings of a zone, earliest first; `covered_share` of the time asked for is within one."""

    zone: str
    signal: Signal | None = Field(description=AVERAGE_OR_MARGINAL)
    covered_share: float = Field(description="In [0, 1]")
    data: list[ReadingOut]

    @classmethod
    def of(
        cls, zone: str, signal: Signal | None, readings: IntensitySeries, *, start: datetime, end: datetime
    ) -> "HistoryOut":
        """The readings that touch `[start, end)`."""
        return cls(
            zone=zone,
            signal=signal,
            covered_share=readings.mean(start, end).covered_share if len(readings) else 0.0,
            data=[ReadingOut.of(reading) for reading in readings],
        )
