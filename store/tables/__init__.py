"""SQLAlchemy models of all tables; times are UTC, energy kWh, intensity gCO2e/kWh, emissions gCO2e."""

from store.tables.access import ApiKey, AuditEntry, Delivery, EndedSession, IdempotencyKey, Webhook
from store.tables.grid import IntensityForecast, IntensityReading, Provider
from store.tables.inputs import Dataset, Model, Policy, TokenStatistics
from store.tables.jobs import (
    Artifact,
    Checkpoint,
    EnergyInterval,
    EnergyTotal,
    Epoch,
    Evaluation,
    Event,
    Job,
    Step,
    Tensor,
)
from store.tables.metering import IdleEnergy, MeteredAttempt, MeteredHost, Worker
from store.tables.table import Json, Table
