"""Carbon-intensity readings and the workers that stand in each zone."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from greencore.carbon import Reading
from store.tables import IntensityReading, Worker


class GridRepository:
    """Queries on readings and workers, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def put(self, readings: Iterable[Reading]) -> None:
        """Store readings; one that is there already for the same zone and start is replaced."""
        for reading in readings:
            values = {
                "zone": reading.zone,
                "start": reading.start,
                "end": reading.end,
                "gco2e_per_kwh": reading.gco2e_per_kwh,
                "source": reading.source,
                "signal": reading.signal,
                "estimated": reading.estimated,
                "fetched_at": reading.fetched_at,
            }
            changed = {key: value for key, value in values.items() if key not in {"zone", "start"}}
            self._session.execute(
                insert(IntensityReading)
                .values(values)
                .on_conflict_do_update(index_elements=["zone", "start"], set_=changed)
            )

    def newest(self, zone: str, *, at: datetime) -> Reading | None:
        """The reading in force at a time: the last that had begun."""
        query = (
            select(IntensityReading)
            .where(IntensityReading.zone == zone, IntensityReading.start <= at)
            .order_by(IntensityReading.start.desc())
            .limit(1)
        )
        row = self._session.scalars(query).one_or_none()
        return None if row is None else _reading(row)

    def between(self, zone: str, start: datetime, end: datetime) -> Sequence[Reading]:
        """Readings that touch `[start, end)`, and the last one before it, in order."""
        first = (
            select(IntensityReading.start)
            .where(IntensityReading.zone == zone, IntensityReading.start <= start)
            .order_by(IntensityReading.start.desc())
            .limit(1)
            .scalar_subquery()
        )
        query = (
            select(IntensityReading)
            .where(
                IntensityReading.zone == zone,
                IntensityReading.start < end,
                (first.is_(None)) | (IntensityReading.start >= first),
            )
            .order_by(IntensityReading.start)
        )
        return [_reading(row) for row in self._session.scalars(query)]

    def seen(self, worker_id: str, *, zones: Sequence[str], device: str, at: datetime) -> None:
        """Note that a training worker is alive."""
        statement = insert(Worker).values(
            id=worker_id, zones=list(zones), device=device, started_at=at, last_seen_at=at
        )
        self._session.execute(
            statement.on_conflict_do_update(
                index_elements=["id"], set_={"zones": list(zones), "device": device, "last_seen_at": at}
            )
        )

    def gone(self, worker_id: str) -> None:
        """Forget a worker that has stopped in order."""
        worker = self._session.get(Worker, worker_id)
        if worker is not None:
            self._session.delete(worker)

    def live_workers(self, *, since: datetime) -> Sequence[Worker]:
        return self._session.scalars(select(Worker).where(Worker.last_seen_at >= since).order_by(Worker.id)).all()


def _reading(row: IntensityReading) -> Reading:
    return Reading(
        zone=row.zone,
        start=row.start,
        end=row.end,
        gco2e_per_kwh=row.gco2e_per_kwh,
        source=row.source,
        signal="marginal" if row.signal == "marginal" else "average",
        estimated=row.estimated,
        fetched_at=row.fetched_at,
    )
