"""The processes that do the work."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from store.tables.table import Table


class Worker(Table):
    """A live process: `role` is train, prepare or scheduler; a training worker serves zones, on a device."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    zones: Mapped[list[str]]
    device: Mapped[str]
    started_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
