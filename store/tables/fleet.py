"""The processes that do the work."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from store.tables.table import Table


class Worker(Table):
    """A live process: `role` is train, prepare or scheduler.

    A training worker has a device and stands in one site: `zone`, and `pue`, the kWh drawn there for each kWh that the
    machine uses. Both are None for any other process.
    """

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    zone: Mapped[str | None]
    pue: Mapped[float | None]
    device: Mapped[str]
    started_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
