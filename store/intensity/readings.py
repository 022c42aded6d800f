"""Stores and queries carbon intensity readings and forecasts of a zone, without mixing different bases."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    String,
    TableValuedAlias,
    and_,
    delete,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from greencore.carbon import Basis, IntensitySeries, Reading, Signal
from greencore.carbon.fallback import IntensitySnapshot, ResolvedIntensity
from greencore.carbon.series import SIGNALS, merge_readings
from greencore.clock import HOUR
from runtime.settings import Settings
from store.database import Repository
from store.tables import IntensityForecast, IntensityReading, Job

IntensityTable = type[IntensityReading] | type[IntensityForecast]

# The fallback chain looks back to the same hour of last week.
LOOKBACK = timedelta(days=8)
INSTANT = timedelta(microseconds=1)
# Of a reading, in the tables as well.
FIELDS = tuple(field.name for field in fields(Reading))


class GridRepository(Repository):
    """Queries on readings and forecasts; none mixes two bases."""

    def put(self, readings: Iterable[Reading]) -> None:
        """Store readings, replacing those of the same zone, signal and start; an estimate replaces no measured one."""
        last_of_each = {(reading.zone, reading.signal, reading.start): reading for reading in readings}
        self._upsert(IntensityReading, last_of_each.values(), keep_measured=True)

    def find_revised(self, readings: Sequence[Reading]) -> list[Reading]:
        """Return the measured among `readings`, all of one zone and basis, that differ from a stored measured one."""
        measured = [reading for reading in readings if not reading.estimated]
        if not measured:
            return []
        stored = IntensityReading
        query = select(stored.start, stored.end, stored.gco2e_per_kwh).where(
            _is_of(stored, measured[0].zone, measured[0].basis),
            _overlaps(stored, min(reading.start for reading in measured), max(reading.end for reading in measured)),
            stored.estimated.is_(False),
        )
        known = {(start, end, value) for start, end, value in self._session.execute(query)}
        new = [r for r in measured if (r.start, r.end, r.gco2e_per_kwh) not in known]
        return [r for r in new if any(start < r.end and r.start < end for start, end, _ in known)]

    def put_forecast(self, zone: str, signal: Signal, readings: Iterable[Reading], *, at: datetime) -> None:
        """Replace a zone's forecast from `at` on; past forecasts are kept."""
        of = IntensityForecast.zone == zone, IntensityForecast.signal == signal
        self._session.execute(delete(IntensityForecast).where(*of, IntensityForecast.end > at))
        self._upsert(IntensityForecast, [reading for reading in readings if reading.end > at])

    def newest_reading(self, zone: str, basis: Basis, *, at: datetime) -> Reading | None:
        """Return the newest reading that began by `at`."""
        query = select(IntensityReading).where(_is_of(IntensityReading, zone, basis), IntensityReading.start <= at)
        return self._first(query.order_by(IntensityReading.start.desc()))

    def earliest_reading(self, zone: str, basis: Basis) -> Reading | None:
        query = select(IntensityReading).where(_is_of(IntensityReading, zone, basis))
        return self._first(query.order_by(IntensityReading.start))

    def newest_basis(self, zone: str, signal: Signal | None = None) -> Basis | None:
        """Return the basis of the zone's newest reading, of `signal` or the signal fetched last; None without any."""
        # One index lookup per signal: finding the reading fetched last among all would need a sort.
        signals = _unnest(SIGNALS if signal is None else [signal], "signal")
        last = (
            select(IntensityReading.emission_factors, IntensityReading.fetched_at)
            .where(IntensityReading.zone == zone, IntensityReading.signal == signals.c.signal)
            .order_by(IntensityReading.start.desc())
            .limit(1)
            .lateral("last")
        )
        query = select(signals.c.signal, last.c.emission_factors).select_from(signals).join(last, true())
        found = self._session.execute(query.order_by(last.c.fetched_at.desc()).limit(1)).one_or_none()
        return None if found is None else Basis(*found)

    def readings_between(self, zone: str, basis: Basis, start: datetime, end: datetime) -> IntensitySeries:
        """Return readings that overlap `[start, end)`, or contain `start` where it is empty, without overlaps."""
        return self._series(IntensityReading, zone, basis, start, end)

    def max_intensity(self, zone: str, basis: Basis) -> float | None:
        """Return the highest intensity of all readings on a basis; None without readings."""
        of = _is_of(IntensityReading, zone, basis)
        return self._session.scalar(select(func.max(IntensityReading.gco2e_per_kwh)).where(of))

    def count_readings(self, zone: str, basis: Basis, start: datetime, end: datetime) -> int:
        """Return the number of readings that overlap `[start, end)`."""
        of = _is_of(IntensityReading, zone, basis), _overlaps(IntensityReading, start, end)
        return self._session.scalar(select(func.count()).where(*of)) or 0

    def forecast(self, zone: str, basis: Basis, start: datetime, end: datetime) -> IntensitySeries:
        """Return the last forecast of `[start, end)`."""
        return self._series(IntensityForecast, zone, basis, start, end)

    def newest_readings(self, zones: Collection[str], *, at: datetime) -> Mapping[str, IntensityReading]:
        """Return by zone the newest reading that began by `at`; of two signals, the one fetched last."""
        zone = _unnest(zones, "zone")
        signal = _unnest(SIGNALS, "signal")
        newest = (
            select(IntensityReading)
            .where(
                IntensityReading.zone == zone.c.zone,
                IntensityReading.signal == signal.c.signal,
                IntensityReading.start <= at,
            )
            .order_by(IntensityReading.start.desc())
            .limit(1)
            .lateral("newest")
        )
        reading = aliased(IntensityReading, newest)
        joined = select(reading).select_from(zone).join(signal, true()).join(newest, true())
        return {found.zone: found for found in self._session.scalars(joined.order_by(reading.fetched_at))}

    def forecast_reach(self, signals: Mapping[str, str]) -> Mapping[str, tuple[datetime, datetime]]:
        """Return by zone when the newest forecast of its signal was fetched, and the end of its last interval."""
        zones, of_zones = literal(list(signals), ARRAY(String)), literal(list(signals.values()), ARRAY(String))
        asked = func.unnest(zones, of_zones).table_valued("zone", "signal").render_derived(name="asked")
        newest = (
            select(IntensityForecast.fetched_at, IntensityForecast.end)
            .where(IntensityForecast.zone == asked.c.zone, IntensityForecast.signal == asked.c.signal)
            .order_by(IntensityForecast.start.desc())
            .limit(1)
            .lateral("newest")
        )
        query = select(asked.c.zone, newest.c.fetched_at, newest.c.end).select_from(asked).join(newest, true())
        return {zone: (fetched_at, end) for zone, fetched_at, end in self._session.execute(query)}

    def load_snapshot(self, zone: str, basis: Basis, start: datetime, end: datetime) -> IntensitySnapshot:
        """Load readings and forecast from which the fallback chain resolves any time in `[start, end)`."""
        readings = self.readings_between(zone, basis, start - LOOKBACK, end)
        return IntensitySnapshot(zone, basis, readings, self.forecast(zone, basis, start, end))

    def resolve_intensity(self, zone: str, basis: Basis, at: datetime, settings: Settings) -> ResolvedIntensity | None:
        """Return a zone's intensity at a time by the fallback chain."""
        known, static = self.load_snapshot(zone, basis, at, at + HOUR), settings.static_mean(zone)
        return known.resolve_intensity(at, stale_limit=settings.stale_limit, static=static)

    def series_with_fallback(
        self, zone: str, basis: Basis, start: datetime, end: datetime, settings: Settings
    ) -> IntensitySeries:
        """Return the intensity that prices energy from `start` to `end`: readings, and the fallback chain in gaps."""
        end = max(end, start + INSTANT)  # a metered interval may be empty
        readings = self.readings_between(zone, basis, start, end)
        # Usually there is no gap, and the days from which gaps are filled need not be read.
        if len(readings) and readings.mean(start, end).covered_share == 1:
            return readings
        known, static = self.load_snapshot(zone, basis, start, end), settings.static_mean(zone)
        return known.series_with_fallback(start, end, stale_limit=settings.stale_limit, static=static)

    def _first(self, query: Select[IntensityReading]) -> Reading | None:
        row = self._session.scalars(query.limit(1)).one_or_none()
        return None if row is None else to_reading(row)

    def _upsert(self, table: IntensityTable, readings: Iterable[Reading], *, keep_measured: bool = False) -> None:
        rows = [{name: getattr(reading, name) for name in FIELDS} for reading in readings]
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
        self, table: IntensityTable, zone: str, basis: Basis, start: datetime, end: datetime
    ) -> IntensitySeries:
        of = _is_of(table, zone, basis), _overlaps(table, start, max(end, start + INSTANT))
        rows: Iterable[IntensityReading | IntensityForecast] = self._session.scalars(
            select(table).where(*of).order_by(table.start)
        )
        return merge_readings(map(to_reading, rows))


def _unnest(values: Iterable[str], name: str) -> TableValuedAlias:
    """Return values as a table with one column."""
    return func.unnest(literal(list(values), ARRAY(String))).table_valued(name).render_derived(name=f"{name}s")


def _is_of(table: IntensityTable, zone: str, basis: Basis) -> ColumnElement[bool]:
    return and_(table.zone == zone, table.signal == basis.signal, table.emission_factors == basis.emission_factors)


def _overlaps(table: IntensityTable, start: datetime, end: datetime) -> ColumnElement[bool]:
    return and_(table.start < end, table.end > start)


def to_reading(row: IntensityReading | IntensityForecast) -> Reading:
    """Return the reading in a row."""
    return Reading(**{name: getattr(row, name) for name in FIELDS})


def get_job_basis(job: Job) -> Basis:
    """Return the basis on which a job is scheduled and priced, fixed at its first placement."""
    return Basis(job.signal or "average", job.emission_factors or "lifecycle")
