"""Stores and queries carbon intensity readings and forecasts of a zone, without mixing different bases."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

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
from sqlalchemy.orm import Session, aliased

from greencore.carbon import Basis, EmissionFactors, IntensitySeries, Reading, Signal
from greencore.carbon.fallback import IntensitySnapshot, ResolvedIntensity
from greencore.carbon.series import SIGNALS, merge_readings
from greencore.carbon.static import StaticMean
from store.tables import IntensityForecast, IntensityReading, Job

IntensityTable = type[IntensityReading] | type[IntensityForecast]

# The fallback chain looks back to the same hour of last week.
LOOKBACK = timedelta(days=8)


class GridRepository:
    """Queries on readings and forecasts, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

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
            _is_of(stored, measured[0].zone, measured[0].signal, measured[0].emission_factors),
            _overlaps(stored, min(reading.start for reading in measured), max(reading.end for reading in measured)),
            stored.estimated.is_(False),
        )
        known = {(start, end, value) for start, end, value in self._session.execute(query)}
        new = [r for r in measured if (r.start, r.end, r.gco2e_per_kwh) not in known]
        return [r for r in new if any(start < r.end and r.start < end for start, end, _ in known)]

    def put_forecast(self, zone: str, signal: Signal, readings: Iterable[Reading], *, at: datetime) -> None:
        """Replace a zone's forecast from `at` on; past forecasts are kept."""
        self._session.execute(
            delete(IntensityForecast).where(_is_of(IntensityForecast, zone, signal), IntensityForecast.end > at)
        )
        self._upsert(IntensityForecast, [reading for reading in readings if reading.end > at])

    def newest_reading(
        self,
        zone: str,
        *,
        at: datetime,
        signal: Signal | None = None,
        emission_factors: EmissionFactors | None = None,
    ) -> Reading | None:
        """Return the newest reading that began by `at`; of `newest_signal` where no signal is given."""
        signal = signal or self.newest_signal(zone)
        of = _is_of(IntensityReading, zone, signal, emission_factors)
        query = select(IntensityReading).where(of, IntensityReading.start <= at)
        return self._first(query.order_by(IntensityReading.start.desc()))

    def earliest_reading(
        self, zone: str, signal: Signal, *, emission_factors: EmissionFactors | None = None
    ) -> Reading | None:
        """Return the earliest reading of a signal."""
        query = select(IntensityReading).where(_is_of(IntensityReading, zone, signal, emission_factors))
        return self._first(query.order_by(IntensityReading.start))

    def newest_signal(self, zone: str) -> Signal | None:
        """Return the signal whose newest reading was fetched last; None without readings."""
        # One index lookup per signal: finding the reading fetched last among all would need a sort.
        signal = _unnest(SIGNALS, "signal")
        last = (
            select(IntensityReading.fetched_at)
            .where(IntensityReading.zone == zone, IntensityReading.signal == signal.c.signal)
            .order_by(IntensityReading.start.desc())
            .limit(1)
            .lateral("last")
        )
        query = select(signal.c.signal).select_from(signal).join(last, true()).order_by(last.c.fetched_at.desc())
        found = self._session.scalar(query.limit(1))
        return None if found is None else parse_signal(found)

    def newest_basis(self, zone: str) -> Basis | None:
        """Return the basis (signal and emission factors) of the zone's reading fetched last; None without readings."""
        signal = self.newest_signal(zone)
        return None if signal is None else Basis(signal, self.newest_emission_factors(zone, signal))

    def newest_emission_factors(self, zone: str, signal: Signal) -> EmissionFactors:
        """Return the emission factors of the newest reading of a signal; `lifecycle` where there is none."""
        query = (
            select(IntensityReading.emission_factors)
            .where(_is_of(IntensityReading, zone, signal))
            .order_by(IntensityReading.start.desc())
            .limit(1)
        )
        return parse_emission_factors(self._session.scalar(query))

    def readings_between(
        self,
        zone: str,
        signal: Signal,
        start: datetime,
        end: datetime,
        *,
        emission_factors: EmissionFactors | None = None,
    ) -> IntensitySeries:
        """Return readings that overlap `[start, end)`, merged without overlaps.

        All have the same emission factors: those given, else those of the zone's newest reading.
        """
        return self._series(IntensityReading, zone, signal, start, end, emission_factors)

    def max_intensity(self, zone: str, basis: Basis) -> float | None:
        """Return the highest intensity of all readings on a basis; None without readings."""
        of = _is_of(IntensityReading, zone, basis.signal, basis.emission_factors)
        return self._session.scalar(select(func.max(IntensityReading.gco2e_per_kwh)).where(of))

    def count_readings(self, zone: str, signal: Signal, start: datetime, end: datetime) -> int:
        """Return the number of readings that overlap `[start, end)`."""
        query = select(func.count()).where(
            _is_of(IntensityReading, zone, signal), _overlaps(IntensityReading, start, end)
        )
        return int(self._session.scalar(query) or 0)

    def forecast(
        self,
        zone: str,
        signal: Signal,
        start: datetime,
        end: datetime,
        *,
        emission_factors: EmissionFactors | None = None,
    ) -> IntensitySeries:
        """Return the last forecast of `[start, end)`, with emission factors as in `readings_between`."""
        return self._series(IntensityForecast, zone, signal, start, end, emission_factors)

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
        query = select(reading).select_from(zone).join(signal, true()).join(newest, true()).order_by(reading.fetched_at)
        return {found.zone: found for found in self._session.scalars(query)}

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
        signal, factors = basis.signal, basis.emission_factors
        return IntensitySnapshot(
            zone,
            basis,
            readings=self.readings_between(zone, signal, start - LOOKBACK, end, emission_factors=factors),
            forecast=self.forecast(zone, signal, start, end, emission_factors=factors),
        )

    def resolve_intensity(
        self, zone: str, basis: Basis, at: datetime, *, stale_limit: timedelta, static: StaticMean | None
    ) -> ResolvedIntensity | None:
        """Return a zone's intensity at a time by the fallback chain."""
        known = self.load_snapshot(zone, basis, at, at + timedelta(hours=1))
        return known.resolve_intensity(at, stale_limit=stale_limit, static=static)

    def series_with_fallback(
        self,
        zone: str,
        basis: Basis,
        start: datetime,
        end: datetime,
        *,
        stale_limit: timedelta,
        static: StaticMean | None,
    ) -> IntensitySeries:
        """Return the intensity that prices energy from `start` to `end`: readings, and the fallback chain in gaps."""
        readings = self.readings_between(zone, basis.signal, start, end, emission_factors=basis.emission_factors)
        # Usually there is no gap, and the days from which gaps are filled need not be read.
        if len(readings) and readings.mean(start, end).covered_share == 1:
            return readings
        known = self.load_snapshot(zone, basis, start, end)
        return known.series_with_fallback(start, end, stale_limit=stale_limit, static=static)

    def _first(self, query: Select[IntensityReading]) -> Reading | None:
        row = self._session.scalars(query.limit(1)).one_or_none()
        return None if row is None else to_reading(row)

    def _upsert(
        self,
        table: IntensityTable,
        readings: Iterable[Reading],
        *,
        keep_measured: bool = False,
    ) -> None:
        """Insert readings, replacing those of the same zone, signal and start."""
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
        table: IntensityTable,
        zone: str,
        signal: Signal,
        start: datetime,
        end: datetime,
        emission_factors: EmissionFactors | None,
    ) -> IntensitySeries:
        factors = emission_factors or self.newest_emission_factors(zone, signal)
        query = select(table).where(_is_of(table, zone, signal, factors), _overlaps(table, start, end))
        rows: Iterable[IntensityReading | IntensityForecast] = self._session.scalars(query.order_by(table.start))
        return merge_readings(map(to_reading, rows))


def _unnest(values: Iterable[str], name: str) -> TableValuedAlias:
    """Return values as a table with one column."""
    return func.unnest(literal(list(values), ARRAY(String))).table_valued(name).render_derived(name=f"{name}s")


def _is_of(
    table: IntensityTable, zone: str, signal: str | None, emission_factors: str | None = None
) -> ColumnElement[bool]:
    """Return the condition that a row is of a zone and signal, and of these emission factors where they are given."""
    of = and_(table.zone == zone, table.signal == signal)
    return of if emission_factors is None else and_(of, table.emission_factors == emission_factors)


def _overlaps(table: IntensityTable, start: datetime, end: datetime) -> ColumnElement[bool]:
    return and_(table.start < end, table.end > start)


def to_reading(row: IntensityReading | IntensityForecast) -> Reading:
    """Return the reading in a row."""
    return Reading(
        zone=row.zone,
        start=row.start,
        end=row.end,
        gco2e_per_kwh=row.gco2e_per_kwh,
        source=row.source,
        signal=parse_signal(row.signal),
        emission_factors=parse_emission_factors(row.emission_factors),
        estimated=row.estimated,
        fetched_at=row.fetched_at,
    )


def parse_signal(value: str | None) -> Signal:
    """Return the signal in a column; the grid's average where it is null."""
    return "marginal" if value == "marginal" else "average"


def parse_emission_factors(value: str | None) -> EmissionFactors:
    """Return the emission factors in a column; those of the life cycle where it is null."""
    return "direct" if value == "direct" else "lifecycle"


def get_job_basis(job: Job) -> Basis:
    """Return the basis on which a job is scheduled and priced, fixed at its first placement."""
    return Basis(parse_signal(job.signal), parse_emission_factors(job.emission_factors))


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
