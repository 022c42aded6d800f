"""What jobs are made of: datasets, models, policies."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from store.tables.table import Json, Table


class Dataset(Table):
    """An uploaded file of training rows. `blob` names the content, which equal files share; `sha256` is the upload's.

    `contents` says what the rows are: their forms, and the characters that they hold. A deleted dataset keeps its row,
    which jobs that are over go on naming.
    """

    __tablename__ = "datasets"
    __table_args__ = (Index("ix_datasets_owner_id", "owner", "id"), Index("ix_datasets_blob", "blob"))

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str | None]
    name: Mapped[str]
    format: Mapped[str]
    rows: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    blob: Mapped[str]
    contents: Mapped[Json | None]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class TokenStatistics(Table):
    """How long a dataset's rows are in the tokens of one model; a prepare worker counts them when somebody asks."""

    __tablename__ = "token_statistics"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    asked_at: Mapped[datetime]
    dispatched_at: Mapped[datetime | None]
    counted_at: Mapped[datetime | None]
    counts: Mapped[Json | None]
    error: Mapped[str | None]


class Policy(Table):
    """One version of a named policy; a job keeps a snapshot, so a new version changes no running job."""

    __tablename__ = "policies"

    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[Json]
    created_at: Mapped[datetime]


class Model(Table):
    """What a prepare worker measured of a catalogue entry.

    `costs` are the FLOPs of a row by its length; `max_length` the most tokens of a row that the model has positions
    for, null where they have no end.
    """

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(primary_key=True)
    parameters: Mapped[int] = mapped_column(BigInteger)
    tensors: Mapped[int]
    rho_floor: Mapped[float]
    max_length: Mapped[int | None]
    costs: Mapped[Json | None]
    measured_at: Mapped[datetime]
