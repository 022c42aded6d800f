"""The tables, as SQLAlchemy models; times are UTC, energy kWh, intensity gCO2e/kWh, emissions gCO2e."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    Enum,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from store.status import JobStatus

Json = dict[str, Any]


class Table(DeclarativeBase):
    """Declarative root; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        str: Text,
        float: Double,
        datetime: DateTime(timezone=True),
        Json: JSONB,
        list[str]: ARRAY(Text),
    }


class Dataset(Table):
    """An uploaded file of training rows, kept under the data directory by its id."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    format: Mapped[str]
    rows: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[datetime]


class Policy(Table):
    """One version of a named policy; a job keeps a snapshot, so a new version changes no running job."""

    __tablename__ = "policies"

    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[Json]
    created_at: Mapped[datetime]


class Model(Table):
    """What a prepare worker measured of a catalogue entry."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(primary_key=True)
    parameters: Mapped[int] = mapped_column(BigInteger)
    tensors: Mapped[int]
    rho_floor: Mapped[float]
    measured_at: Mapped[datetime]


class Job(Table):
    """One fine-tuning run, from submission to its end. The row is the outbox: nothing else holds the job.

    `ready_at` is when it could first have run, `not_before` when its gate is looked at again, `signal` the kind of
    intensity that it is steered and priced by, `gate` what its gate said last, `utility` the importance that its
    newest probe found for each ρ, `tracker_kwh` CodeCarbon's own count of the energy, and `settled_at` when the price
    of all of it became final.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_status_priority", "status", "priority", "id"),
        CheckConstraint("epochs_done >= 0 AND epochs_done <= epochs", name="epochs_done"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[JobStatus] = mapped_column(
        Enum(JobStatus, native_enum=False, length=16, values_callable=lambda e: [status.value for status in e])
    )
    reason: Mapped[str | None]
    error: Mapped[Json | None]

    model: Mapped[str]
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    method: Mapped[str]
    policy_name: Mapped[str | None]
    policy: Mapped[Json]
    zone_asked: Mapped[str | None]
    zone: Mapped[str | None]
    deadline: Mapped[datetime | None]
    priority: Mapped[int]
    hyperparameters: Mapped[Json]
    labels: Mapped[Json] = mapped_column("metadata")

    created_at: Mapped[datetime]
    ready_at: Mapped[datetime | None]
    queued_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]

    attempts: Mapped[int] = mapped_column(default=0)
    lost_attempts: Mapped[int] = mapped_column(default=0)
    lease_token: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None] = mapped_column(index=True)
    worker_id: Mapped[str | None]
    control: Mapped[str] = mapped_column(default="run")

    estimate: Mapped[Json | None]
    epochs: Mapped[int]
    epochs_done: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int | None]
    steps_done: Mapped[int] = mapped_column(default=0)
    rho: Mapped[float | None]
    loss: Mapped[float | None]
    energy_kwh: Mapped[float] = mapped_column(default=0.0)
    emissions_gco2e: Mapped[float] = mapped_column(default=0.0)
    device: Mapped[str | None]
    evaluation: Mapped[Json | None]

    signal: Mapped[str | None]
    gate: Mapped[Json | None]
    utility: Mapped[Json | None]
    tracker_kwh: Mapped[float | None]
    settled_at: Mapped[datetime | None]
    counterfactuals: Mapped[Json | None]


class Epoch(Table):
    """One epoch of a job: what was asked, why, what was reached and what it cost."""

    __tablename__ = "epochs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    rho_asked: Mapped[float]
    reason: Mapped[str]
    intensity_gco2e_per_kwh: Mapped[float | None]
    intensity_source: Mapped[str | None]
    intensity_step: Mapped[str | None]
    intensity_age_seconds: Mapped[float | None]
    intensity_estimated: Mapped[bool]

    rho_reached: Mapped[float | None]
    flops: Mapped[float | None]
    full_flops: Mapped[float | None]
    probe_flops: Mapped[float | None]
    probe_seconds: Mapped[float | None]
    tensors_selected: Mapped[int | None]
    tensors_total: Mapped[int | None]
    selection: Mapped[Json | None]

    train_loss: Mapped[float | None]
    eval_loss: Mapped[float | None]


class EnergyInterval(Table):
    """Metered energy over at most a minute, all of it at one intensity, and its price; lost attempts keep theirs.

    `settled` is false while the price is provisional: until the source has published what it measured.
    """

    __tablename__ = "energy_intervals"
    __table_args__ = (
        Index("ix_energy_intervals_job_id_epoch", "job_id", "epoch"),
        Index("ix_energy_intervals_provisional", "finished_at", postgresql_where=text("NOT settled")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    epoch: Mapped[int]
    attempt: Mapped[int]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime]
    cpu_kwh: Mapped[float]
    gpu_kwh: Mapped[float]
    ram_kwh: Mapped[float]
    method: Mapped[Json]
    intensity_gco2e_per_kwh: Mapped[float | None]
    intensity_source: Mapped[str | None]
    intensity_estimated: Mapped[bool]
    pue: Mapped[float] = mapped_column(default=1.0)
    emissions_gco2e: Mapped[float | None]
    settled: Mapped[bool] = mapped_column(default=False)

    @hybrid_property
    def energy_kwh(self) -> float:
        """CPU, GPU and memory together."""
        return self.cpu_kwh + self.gpu_kwh + self.ram_kwh


class Event(Table):
    """The history of a job: one row for each transition and each thing worth telling."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_job_id_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    type: Mapped[str]
    data: Mapped[Json]


class Artifact(Table):
    """One file of a finished job's result."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[datetime]


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


class Worker(Table):
    """A live training worker: which zones it serves, on which device, when it was last seen."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    zones: Mapped[list[str]]
    device: Mapped[str]
    started_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
