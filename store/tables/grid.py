"""Carbon intensity readings and forecasts in gCO2e/kWh, and the health of their providers."""

from datetime import datetime

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from greencore.carbon import EmissionFactors, Signal
from store.tables.table import Table


class _Intensity:
    """Carbon intensity of a zone over one interval, for one signal (average or marginal)."""

    zone: Mapped[str] = mapped_column(primary_key=True)
    signal: Mapped[Signal] = mapped_column(primary_key=True)
    start: Mapped[datetime] = mapped_column(primary_key=True)
    end: Mapped[datetime]
    gco2e_per_kwh: Mapped[float]
    source: Mapped[str]
    emission_factors: Mapped[EmissionFactors]
    estimated: Mapped[bool]
    fetched_at: Mapped[datetime]


class IntensityReading(_Intensity, Table):
    """A source's intensity of an interval that has begun."""

    __tablename__ = "intensity_readings"


class IntensityForecast(_Intensity, Table):
    """The last forecast of an interval, by the provider or GreenTune; past ones are kept."""

    __tablename__ = "intensity_forecasts"


class Provider(Table):
    """Health of a zone's source: failures and last success."""

    __tablename__ = "providers"

    zone: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str]
    failures: Mapped[int] = mapped_column(BigInteger, default=0)
    consecutive_failures: Mapped[int] = mapped_column(default=0)
    last_success_at: Mapped[datetime | None]
    last_failure_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
