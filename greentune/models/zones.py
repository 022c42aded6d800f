"""Zones with their stored intensities and forecasts, in gCO2e/kWh."""

from datetime import datetime
from typing import Literal

from greentune.models.answer import Answer, EmissionFactors, Signal


class Reading(Answer):
    """Intensity of one interval in gCO2e/kWh."""

    start: datetime
    end: datetime
    gco2e_per_kwh: float
    source: str
    estimated: bool
    """True where the value is modelled or forecast instead of measured"""
    emission_factors: EmissionFactors
    """Life-cycle emissions (with building the plants and supplying the fuel), or direct ones (combustion only)"""


class ForecastReach(Answer):
    """Creation time and end of a stored forecast."""

    made_at: datetime
    until: datetime


class Provider(Answer):
    """Responses of a zone's source so far."""

    source: str
    """Kind of the source at the last request"""
    last_success_at: datetime | None
    """None without a success so far"""
    failures_in_a_row: int
    """Number of failures since the last success"""
    last_failure_at: datetime | None
    fault: str | None
    """Reason of the last failure; None after a success"""


class Zone(Answer):
    """A zone of the service; values that are not known yet are None."""

    zone: str
    signal: Signal | None
    """Intensity of the grid's average, or of the marginal plant"""
    newest: Reading | None
    """Last stored reading that has begun"""
    age_seconds: float | None
    """Seconds since the start of that reading"""
    forecast: ForecastReach | None
    """None where no forecast reaches beyond the current time"""
    workers: int
    """Number of live training workers"""
    provider: Provider | None = None
    """None before the first request, and for an older service"""


class Intensity(Answer):
    """Current intensity of a zone, and the step of the fallback chain that found it."""

    zone: str
    gco2e_per_kwh: float
    step: Literal["fresh", "forecast", "stale", "yesterday", "last week", "static"]
    """Step of the fallback chain: fresh where a reading covers this time, else what replaces it"""
    source: str
    """Source of the reading, after the step where that is not fresh"""
    signal: Signal
    """Intensity of the grid's average, or of the marginal plant"""
    emission_factors: EmissionFactors
    """Life-cycle emissions (with building the plants and supplying the fuel), or direct ones (combustion only)"""
    estimated: bool
    """False only where a measured reading covers this time"""
    start: datetime
    """Start of the reading's interval (UTC)"""
    end: datetime
    age_seconds: float
    """Seconds since that start"""
    fetched_at: datetime


class Forecast(Answer):
    """Forecast of a zone; empty where none is stored."""

    zone: str
    signal: Signal | None
    """Intensity of the grid's average, or of the marginal plant"""
    made_at: datetime | None
    """Creation time of the newest part (UTC)"""
    provider_until: datetime | None
    """End of the provider's forecast; the rest, or all of it where this is None, is GreenTune's own, from stored
    readings"""
    until: datetime | None
    """End of the forecast (UTC)"""
    data: list[Reading]


class History(Answer):
    """Stored readings of a zone, earliest first, which cover `covered_share` of the requested time."""

    zone: str
    signal: Signal | None
    """Intensity of the grid's average, or of the marginal plant"""
    covered_share: float
    """Share in [0, 1]"""
    data: list[Reading]
