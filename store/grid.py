"""Carbon-intensity readings and forecasts, zone by zone; average and marginal ones are never mixed."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ARRAY, String, delete, func, literal, or_, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from greencore.carbon import IntensitySeries, Reading, Signal
from greencore.carbon.fallback import Known
from greencore.carbon.merging import merged
from greencore.carbon.series import SIGNALS
from store.knowledge import Knowledge
from store.tables import IntensityForecast, IntensityReading

# The fallback chain looks back to the same hour of last week.
LOOK_BACK = timedelta(days=8)


class GridRepository:
    """Queries on readings and forecasts, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def put(self, readings: Iterable[Reading]) -> None:
        """Store readings. One that is there for the same zone, signal and start is replaced, unless it was measured
        and the new one is an estimate."""
        last_of_each = {(reading.zone, reading.signal, reading.start): reading for reading in readings}
        self._upsert(IntensityReading, last_of_each.values(), keep_measured=True)

    def find_revised(self, readings: Sequence[Reading]) -> list[Reading]:
        """The measured ones among `readings`, all of one zone and signal, that are not stored with the same value."""
        if not readings:
            return []
        stored = IntensityReading
        query = select(stored.start, stored.end, stored.gco2e_per_kwh).where(
            stored.zone == readings[0].zone,
            stored.signal == readings[0].signal,
            stored.start >= min(reading.start for reading in readings),
            stored.start <= max(reading.start for reading in readings),
            stored.estimated.is_(False),
        )
        known = {(start, end, value) for start, end, value in self._session.execute(query)}
        return [
            reading
            for reading in readings
            if not reading.estimated and (reading.start, reading.end, reading.gco2e_per_kwh) not in known
        ]

    def put_forecast(self, zone: str, signal: Signal, readings: Iterable[Reading], *, at: datetime) -> None:
        """Store what is expected from `at` on, in place of what was expected before; the past stays as it is."""
        self._session.execute(
            delete(IntensityForecast).where(
                IntensityForecast.zone == zone, IntensityForecast.signal == signal, IntensityForecast.end > at
            )
        )
        self._upsert(IntensityForecast, [reading for reading in readings if reading.end > at])

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
        return None if row is None else reading_of(row)

    def first(self, zone: str, signal: Signal) -> Reading | None:
        """The earliest reading."""
        query = (
            select(IntensityReading)
            .where(IntensityReading.zone == zone, IntensityReading.signal == signal)
            .order_by(IntensityReading.start)
            .limit(1)
        )
        row = self._session.scalars(query).one_or_none()
        return None if row is None else reading_of(row)

    def signal(self, zone: str) -> Signal | None:
        """Of the last reading of each signal, the signal of the one that was fetched last; None where there is none."""
        # One look into the primary key's index a signal: the last fetched of all readings would have to be sorted for.
        signal = (
            func.unnest(literal(list(SIGNALS), ARRAY(String))).table_valued("signal").render_derived(name="signals")
        )
        last = (
            select(IntensityReading.fetched_at)
            .where(IntensityReading.zone == zone, IntensityReading.signal == signal.c.signal)
            .order_by(IntensityReading.start.desc())
            .limit(1)
            .lateral("last")
        )
        query = select(signal.c.signal).select_from(signal).join(last, true()).order_by(last.c.fetched_at.desc())
        found = self._session.scalar(query.limit(1))
        return None if found is None else signal_named(found)

    def between(self, zone: str, signal: Signal, start: datetime, end: datetime) -> IntensitySeries:
        """Readings that touch `[start, end)`, without overlaps."""
        return self._series(IntensityReading, zone, signal, start, end)

    def dirtiest(self, zone: str, signal: Signal) -> float | None:
        """The highest intensity ever read; None where there is no reading."""
        query = select(func.max(IntensityReading.gco2e_per_kwh)).where(
            IntensityReading.zone == zone, IntensityReading.signal == signal
        )
        return self._session.scalar(query)

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
            zone,
            signal,
            readings=self.between(zone, signal, start - LOOK_BACK, end),
            forecast=self.forecast(zone, signal, start, end),
        )

    def in_force(self, zone: str, signal: Signal | None, at: datetime, *, stale_limit: timedelta) -> Known | None:
        """What the fallback chain takes for a zone's intensity at a time; of the average where no signal is known."""
        known = self.knowledge(zone, signal or "average", at, at + timedelta(hours=1))
        return known.in_force(at, stale_limit=stale_limit)

    def filled(
        self, zone: str, signal: Signal, start: datetime, end: datetime, *, stale_limit: timedelta
    ) -> IntensitySeries:
        """What the time from `start` to `end` (later) is priced by: its readings, and the fallback chain in gaps."""
        readings = self.between(zone, signal, start, end)
        # As a rule nothing is missing, and the days that a gap is filled from need not be read.
        if len(readings) and readings.mean(start, end).covered_share == 1:
            return readings
        return self.knowledge(zone, signal, start, end).filled(start, end, stale_limit=stale_limit)

    def _upsert(
        self,
        table: type[IntensityReading] | type[IntensityForecast],
        readings: Iterable[Reading],
        *,
        keep_measured: bool = False,
    ) -> None:
        """Insert readings, in place of those that are there for the same zone, signal and start."""
        rows = [_row(reading) for reading in readings]
        if not rows:
            return
        key = ["zone", "signal", "start"]
        statement = insert(table)
        new = statement.excluded
        upsert = statement.on_conflict_do_update(
            index_elements=key,
            set_={name: new[name] for name in rows[0] if name not in key},
            where=or_(table.estimated, ~new.estimated) if keep_measured else None,
        )
        self._session.execute(upsert, rows)

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
        return merged(map(reading_of, rows))


def reading_of(row: IntensityReading | IntensityForecast) -> Reading:
    """A reading as it is stored."""
    return Reading(
        zone=row.zone,
        start=row.start,
        end=row.end,
        gco2e_per_kwh=row.gco2e_per_kwh,
        source=row.source,
        signal=signal_named(row.signal),
        emission_factors="direct" if row.emission_factors == "direct" else "lifecycle",
        estimated=row.estimated,
        fetched_at=row.fetched_at,
    )


def signal_named(value: str | None) -> Signal:
    """The signal as it is stored; the grid's average unless it says otherwise."""
    return "marginal" if value == "marginal" else "average"


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
