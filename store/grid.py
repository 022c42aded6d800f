"""Carbon-intensity readings and forecasts, zone by zone; average and marginal ones are never mixed."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from greencore.carbon import IntensitySeries, Reading, Signal
from greencore.carbon.merging import merged
from store.tables import IntensityForecast, IntensityReading

# The fallback chain looks back to the same hour of last week.
LOOK_BACK = timedelta(days=8)


@dataclass(frozen=True)
class Knowledge:
    """What is stored of a zone around a time: readings up to it, and what is expected."""

    readings: IntensitySeries
    forecast: IntensitySeries


class GridRepository:
    """Queries on readings and forecasts, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def put(self, readings: Iterable[Reading]) -> None:
        """Store readings. One that is there for the same zone, signal and start is replaced, unless it was measured
        and the new one is an estimate."""
        rows = list({(r.zone, r.signal, r.start): _row(r) for r in readings}.values())
        if not rows:
            return
        statement = insert(IntensityReading)
        changed = {name: statement.excluded[name] for name in rows[0] if name not in {"zone", "signal", "start"}}
        self._session.execute(
            statement.on_conflict_do_update(
                index_elements=["zone", "signal", "start"],
                set_=changed,
                where=or_(IntensityReading.estimated, ~statement.excluded.estimated),
            ),
            rows,
        )

    def put_forecast(self, zone: str, signal: Signal, readings: Iterable[Reading], *, at: datetime) -> None:
        """Store what is expected from `at` on, in place of what was expected before; the past stays as it is."""
        self._session.execute(
            delete(IntensityForecast).where(
                IntensityForecast.zone == zone, IntensityForecast.signal == signal, IntensityForecast.end > at
            )
        )
        rows = [_row(reading) for reading in readings if reading.end > at]
        if rows:
            statement = insert(IntensityForecast)
            changed = {name: statement.excluded[name] for name in rows[0] if name not in {"zone", "signal", "start"}}
            self._session.execute(
                statement.on_conflict_do_update(index_elements=["zone", "signal", "start"], set_=changed), rows
            )

    def newest(self, zone: str, *, at: datetime, signal: Signal | None = None) -> Reading | None:
        """The last reading that had begun by a time; without a signal, of the one that was fetched last."""
        signal = signal or self.signal(zone)
        query = (
            select(IntensityReading)
            .where(IntensityReading.zone == zone, IntensityReading.signal == signal, IntensityReading.start <= at)
            .order_by(IntensityReading.start.desc())
            .limit(1)
        )
        row = self._session.scalars(query).one_or_none()
        return None if row is None else _reading(row)

    def first(self, zone: str, signal: Signal) -> Reading | None:
        """The earliest reading."""
        query = (
            select(IntensityReading)
            .where(IntensityReading.zone == zone, IntensityReading.signal == signal)
            .order_by(IntensityReading.start)
            .limit(1)
        )
        row = self._session.scalars(query).one_or_none()
        return None if row is None else _reading(row)

    def signal(self, zone: str) -> Signal | None:
        """The signal of the zone's reading that was fetched last; None where there is none."""
        query = (
            select(IntensityReading.signal)
            .where(IntensityReading.zone == zone)
            .order_by(IntensityReading.fetched_at.desc())
            .limit(1)
        )
        found = self._session.scalar(query)
        return None if found is None else _signal(found)

    def between(self, zone: str, signal: Signal, start: datetime, end: datetime) -> IntensitySeries:
        """Readings that touch `[start, end)`, without overlaps."""
        return self._series(IntensityReading, zone, signal, start, end)

    def count(self, zone: str, signal: Signal, start: datetime, end: datetime) -> int:
        """How many readings touch `[start, end)`."""
        query = select(func.count()).where(
            IntensityReading.zone == zone,
            IntensityReading.signal == signal,
            IntensityReading.start < end,
            IntensityReading.end > start,
        )
        return int(self._session.scalar(query) or 0)

    def forecast(self, zone: str, signal: Signal, start: datetime, end: datetime) -> IntensitySeries:
        """What was last expected of `[start, end)`."""
        return self._series(IntensityForecast, zone, signal, start, end)

    def forecast_made(self, zone: str, signal: Signal) -> tuple[datetime, datetime] | None:
        """When the newest forecast was fetched, and how far it reaches; None where there is none."""
        query = (
            select(IntensityForecast.fetched_at, IntensityForecast.end)
            .where(IntensityForecast.zone == zone, IntensityForecast.signal == signal)
            .order_by(IntensityForecast.start.desc())
            .limit(1)
        )
        row = self._session.execute(query).one_or_none()
        return None if row is None else (row.fetched_at, row.end)

    def knowledge(self, zone: str, signal: Signal, start: datetime, end: datetime) -> Knowledge:
        """What the fallback chain needs to say the intensity of any time in `[start, end)`."""
        return Knowledge(
            readings=self.between(zone, signal, start - LOOK_BACK, end),
            forecast=self.forecast(zone, signal, start, end),
        )

    def _series(
        self,
        table: type[IntensityReading] | type[IntensityForecast],
        zone: str,
        signal: Signal,
        start: datetime,
        end: datetime,
    ) -> IntensitySeries:
        query = (
            select(table)
            .where(table.zone == zone, table.signal == signal, table.start < end, table.end > start)
            .order_by(table.start)
        )
        rows: Iterable[IntensityReading | IntensityForecast] = self._session.scalars(query)
        return merged(map(_reading, rows))


def outlook_of(readings: IntensitySeries, forecast: IntensitySeries, *, now: datetime) -> IntensitySeries:
    """What is expected from now on: the reading in force, then the forecast."""
    in_force = readings.at(now)
    if in_force is None:
        return forecast
    later = [_from(reading, in_force.end) for reading in forecast if reading.end > in_force.end]
    return IntensitySeries([in_force, *later])


def _from(reading: Reading, start: datetime) -> Reading:
    return reading if reading.start >= start else replace(reading, start=start)


def _row(reading: Reading) -> dict[str, Any]:
    return {
        "zone": reading.zone,
        "signal": reading.signal,
        "start": reading.start,
        "end": reading.end,
        "gco2e_per_kwh": reading.gco2e_per_kwh,
        "source": reading.source,
        "emission_factors": reading.emission_factors,
        "estimated": reading.estimated,
        "fetched_at": reading.fetched_at,
    }


def _reading(row: IntensityReading | IntensityForecast) -> Reading:
    return Reading(
        zone=row.zone,
        start=row.start,
        end=row.end,
        gco2e_per_kwh=row.gco2e_per_kwh,
        source=row.source,
        signal=_signal(row.signal),
        emission_factors="direct" if row.emission_factors == "direct" else "lifecycle",
        estimated=row.estimated,
        fetched_at=row.fetched_at,
    )


def _signal(value: str) -> Signal:
    return "marginal" if value == "marginal" else "average"
