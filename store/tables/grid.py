"""The grid: readings, forecasts, and how their sources answer; intensity in gCO2e/kWh."""

from datetime import datetime

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.table import Table


class _Intensity:
    """The grid's carbon intensity over one interval of a zone; average and marginal are kept apart."""

    zone: Mapped[str] = mapped_column(primary_key=True)
    signal: Mapped[str] = mapped_column(primary_key=True)
    start: Mapped[datetime] = mapped_column(primary_key=True)
    end: Mapped[datetime]
    gco2e_per_kwh: Mapped[float]
    source: Mapped[str]
    emission_factors: Mapped[str]
    estimated: Mapped[bool]
    fetched_at: Mapped[datetime]


class IntensityReading(_Intensity, Table):
    """What a source said of an interval that has begun."""

    __tablename__ = "intensity_readings"


class IntensityForecast(_Intensity, Table):
    """What was last expected of an interval, by the provider or by our own forecast; past ones stay as a record."""

    __tablename__ = "intensity_forecasts"


class Provider(Table):
    """How the source of a zone has answered: what an operator asks when readings stay away."""

    __tablename__ = "providers"

    zone: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str]
    failures: Mapped[int] = mapped_column(BigInteger, default=0)
    consecutive_failures: Mapped[int] = mapped_column(default=0)
    last_success_at: Mapped[datetime | None]
    last_failure_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
