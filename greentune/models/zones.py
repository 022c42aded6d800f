"""The grid as the service last heard of it; intensities in gCO2e/kWh."""

from datetime import datetime
from typing import Literal

from greentune.models.answer import Answer, EmissionFactors, Signal


class Reading(Answer):
    """The intensity of one interval, in gCO2e/kWh."""

    start: datetime
    end: datetime
    gco2e_per_kwh: float
    source: str
    estimated: bool
    """True where the value was modelled or forecast instead of measured"""
    emission_factors: EmissionFactors
    """Whether building the plants and bringing the fuel counts, or only what they burn"""


class ForecastReach(Answer):
    """When a stored forecast was made, and how far it reaches."""

    made_at: datetime
    until: datetime


class Provider(Answer):
    """How the source of a zone has answered so far."""

    source: str
    """Its kind, as it was asked last"""
    last_success_at: datetime | None
    """None where it has never answered"""
    failures_in_a_row: int
    """Since it last answered"""
    last_failure_at: datetime | None
    fault: str | None
    """Of the last failure; None where it has answered since"""


class Zone(Answer):
    """A zone that this service knows; what is not known yet is None."""

    zone: str
    signal: Signal | None
    """Of the grid's average, or of the plant that another kWh would start"""
    newest: Reading | None
    """The last stored reading that has begun"""
    age_seconds: float | None
    """Since the start of that reading"""
    forecast: ForecastReach | None
    """None where none reaches beyond the present"""
    workers: int
    """Training workers that are alive there"""
    provider: Provider | None = None
    """None where its source has not been asked yet, or the service is too old to say"""


class Intensity(Answer):
    """The intensity in force in a zone, and how it was found."""

    zone: str
    gco2e_per_kwh: float
    step: Literal["fresh", "forecast", "stale", "yesterday", "last week", "static"]
    """Fresh where a reading covers this time; else what stands in for one"""
    source: str
    """Of the reading, after the step where that is not fresh"""
    signal: Signal
    """Of the grid's average, or of the plant that another kWh would start"""
    emission_factors: EmissionFactors
    """Whether building the plants and bringing the fuel counts, or only what they burn"""
    estimated: bool
    """False only where a measured reading covers this time"""
    start: datetime
    """Of the interval that the reading describes"""
    end: datetime
    age_seconds: float
    """Since that start"""
    fetched_at: datetime


class Forecast(Answer):
    """What is expected of a zone; empty where nothing is stored."""

    zone: str
    signal: Signal | None
    """Of the grid's average, or of the plant that another kWh would start"""
    made_at: datetime | None
    """When the newest part was made"""
    provider_until: datetime | None
    """Where the provider's forecast ends; from there on, or all of it where this is None, it is our own, made from
    stored readings"""
    until: datetime | None
    """Where all of it ends"""
    data: list[Reading]


class History(Answer):
    """Stored readings of a zone, earliest first; `covered_share` of the time asked for is within one."""

    zone: str
    signal: Signal | None
    """Of the grid's average, or of the plant that another kWh would start"""
    covered_share: float
    """In [0, 1]"""
    data: list[Reading]
