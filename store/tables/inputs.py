"""Inputs of jobs: datasets and their token statistics, policies and models."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.table import Json, Table


class Dataset(Table):
    """An uploaded file of training rows.

    `blob` identifies the stored rows, which equal datasets share; `sha256` is that of the upload. `contents` are the
    forms of the rows and their number of characters, `columns` what the fields of a row were taken from. A deleted
    dataset keeps its row, to which ended jobs refer.
    """

    __tablename__ = "datasets"
    __table_args__ = (Index("ix_datasets_owner_id", "owner", "id"), Index("ix_datasets_blob", "blob"))

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str | None]
    name: Mapped[str]
    format: Mapped[str]
    compression: Mapped[str | None]
    columns: Mapped[Json | None]
    rows: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    blob: Mapped[str]
    contents: Mapped[Json | None]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class TokenStatistics(Table):
    """Token counts of a dataset's rows for one model and way to learn them, computed by a prepare worker on request.

    `preview` are the first rows with their learned tokens marked, stored before the counts.
    """

    __tablename__ = "token_statistics"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    prompt_format: Mapped[str] = mapped_column(primary_key=True, default="plain")
    train_on: Mapped[str] = mapped_column(primary_key=True, default="assistant")
    asked_at: Mapped[datetime]
    dispatched_at: Mapped[datetime | None]
    counted_at: Mapped[datetime | None]
    counts: Mapped[Json | None]
    preview: Mapped[Json | None]
    error: Mapped[str | None]


class Policy(Table):
    """One version of a named policy; jobs keep a copy, so that a new version changes no existing job."""

    __tablename__ = "policies"

    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[Json]
    created_at: Mapped[datetime]


class Model(Table):
    """Measurements of a catalogue entry by a prepare worker.

    `costs` are the FLOPs of a row by its length; `max_length` is the largest number of tokens for which the model has
    positions, null where unlimited. `names` are those of its tensors and modules (`greencore.model_names.ModelNames`),
    some 50 kB for a large model, and loaded only where they are read.
    """

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(primary_key=True)
    parameters: Mapped[int] = mapped_column(BigInteger)
    tensors: Mapped[int]
    rho_floor: Mapped[float]
    max_length: Mapped[int | None]
    costs: Mapped[Json | None]
    names: Mapped[Json | None] = mapped_column(deferred=True)
    measured_at: Mapped[datetime]
