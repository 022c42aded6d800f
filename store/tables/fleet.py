"""Live processes: workers and schedulers."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from store.tables.table import Table


class Worker(Table):
    """A live process: `role` is train, prepare or scheduler.

    `zone` and `pue` (kWh drawn by the site for each kWh that the machine uses) are None unless it is a training worker.
    """

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    zone: Mapped[str | None]
    pue: Mapped[float | None]
    device: Mapped[str]
    started_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
