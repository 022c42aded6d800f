"""Finds metered energy that can be priced, or whose price can become final, by zone and job."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    String,
    TableValuedAlias,
    and_,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    text,
    true,
    update,
)

from greencore.carbon import Basis
from greencore.carbon.accounting.pricing import TimeSpan
from store.database import Repository
from store.tables import EnergyInterval

# A loose index scan: one step of the partial index for each zone and job, however many intervals it has.
OPEN_ENERGY_QUERY = text("""
    WITH RECURSIVE open AS (
        (SELECT zone, job_id FROM energy_intervals WHERE NOT settled ORDER BY zone, job_id LIMIT 1)
        UNION ALL
        SELECT following.zone, following.job_id FROM open CROSS JOIN LATERAL (
            SELECT zone, job_id FROM energy_intervals
            WHERE NOT settled AND (zone, job_id) > (open.zone, open.job_id) ORDER BY zone, job_id LIMIT 1
        ) AS following
    )
    SELECT open.zone, jobs.signal, jobs.emission_factors, array_agg(jobs.id ORDER BY jobs.id),
        min(earliest.started_at), max(latest.finished_at)
    FROM open
    JOIN jobs ON jobs.id = open.job_id
    CROSS JOIN LATERAL (
        SELECT started_at FROM energy_intervals
        WHERE zone = open.zone AND job_id = open.job_id AND NOT settled ORDER BY finished_at LIMIT 1
    ) AS earliest
    CROSS JOIN LATERAL (
        SELECT finished_at FROM energy_intervals
        WHERE zone = open.zone AND job_id = open.job_id AND NOT settled ORDER BY finished_at DESC LIMIT 1
    ) AS latest
    GROUP BY open.zone, jobs.signal, jobs.emission_factors ORDER BY open.zone, jobs.signal, jobs.emission_factors
""")


@dataclass(frozen=True)
class OpenEnergy:
    """Energy of one zone and basis whose price is not final: its jobs and time span."""

    zone: str
    basis: Basis
    job_ids: Sequence[str]
    start: datetime
    end: datetime


@dataclass(frozen=True)
class SettlementCriteria:
    """When energy of a zone is priced, and when its price becomes final.

    It is priced where measured readings cover it (`measured`), and, without a price, where its intensity is known
    (`known`). It becomes final, with the price that it has, where it ended before `final_before`.
    """

    measured: Sequence[TimeSpan]
    known: Sequence[TimeSpan]
    final_before: datetime

    @property
    def priced(self) -> ColumnElement[bool]:
        """Whether an interval gets a new price."""
        unpriced = EnergyInterval.emissions_gco2e.is_(None)
        is_old = EnergyInterval.finished_at < self.final_before
        return or_(
            _meets(self.measured, whole=True),
            and_(unpriced, _meets(self.known, whole=True)),
            # Nothing more will become known.
            and_(unpriced, is_old, _meets(self.known, whole=False)),
        )

    @property
    def closed(self) -> ColumnElement[bool]:
        """Whether an interval's price, or its lack of one, becomes final."""
        return and_(EnergyInterval.finished_at < self.final_before, ~self.priced)

    @property
    def latest(self) -> datetime:
        """The latest end of an interval that is priced."""
        return max([self.final_before, *(end for _, end in (*self.measured[-1:], *self.known[-1:]))])


class SettlementRepository(Repository):
    """Queries on provisional prices."""

    def open_energy(self) -> Sequence[OpenEnergy]:
        """Return all energy without a final price, by zone and basis."""
        rows = self._session.execute(OPEN_ENERGY_QUERY).all()
        return [
            OpenEnergy(zone, Basis(signal or "average", factors or "lifecycle"), jobs, start, end)
            for zone, signal, factors, jobs, start, end in rows
        ]

    def unpriced_span(self, energy: OpenEnergy) -> TimeSpan | None:
        """Return the time from the first to the last open interval without a price; None without any."""
        query = select(func.min(EnergyInterval.started_at), func.max(EnergyInterval.finished_at)).where(
            EnergyInterval.job_id.in_(energy.job_ids),
            EnergyInterval.zone == energy.zone,
            EnergyInterval.emissions_gco2e.is_(None),
            EnergyInterval.settled.is_(False),
        )
        start, end = self._session.execute(query).one()
        return None if start is None else (start, end)

    def find_intervals_to_price(
        self, energy: OpenEnergy, when: SettlementCriteria, *, limit: int, each: int
    ) -> dict[str, list[int]]:
        """Return ids of intervals to price, by job: at most `limit`, and at most `each` of one job.

        The oldest of every job come first, so that no job waits for another.
        """
        job = _each(energy.job_ids)
        due = (
            select(
                EnergyInterval.id,
                EnergyInterval.finished_at,
                func.row_number().over(order_by=EnergyInterval.finished_at).label("place"),
            )
            .where(
                *_open(energy.zone, job.c.id),
                EnergyInterval.finished_at <= when.latest,
                when.priced,
            )
            .order_by(EnergyInterval.finished_at)
            .limit(each)
            .lateral("due")
        )
        query = select(job.c.id, due.c.id).select_from(job).join(due, true()).order_by(due.c.place, due.c.finished_at)
        found: dict[str, list[int]] = {}
        for job_id, interval_id in self._session.execute(query.limit(limit)):
            found.setdefault(job_id, []).append(interval_id)
        return found

    def find_jobs_to_close(self, energy: OpenEnergy, when: SettlementCriteria) -> Sequence[str]:
        """Return the jobs with energy whose present price becomes final."""
        job = _each(energy.job_ids)
        closed = exists().where(*_open(energy.zone, job.c.id), when.closed)
        return self._session.scalars(select(job.c.id).where(closed)).all()

    def close(self, zone: str, job_id: str, when: SettlementCriteria, *, limit: int) -> None:
        """Make the present prices, or missing prices, of at most `limit` intervals of a locked job in a zone final."""
        ids = (
            select(EnergyInterval.id)
            .where(*_open(zone, job_id), when.closed)
            .order_by(EnergyInterval.finished_at)
            .limit(limit)
        )
        self._session.execute(
            update(EnergyInterval)
            .where(EnergyInterval.id.in_(ids))
            .values(settled=True)
            .execution_options(synchronize_session=False)
        )

    def intervals(self, ids: Collection[int]) -> Sequence[EnergyInterval]:
        """Return the intervals among `ids` whose price is not final, by time."""
        query = select(EnergyInterval).where(EnergyInterval.id.in_(ids), EnergyInterval.settled.is_(False))
        return self._session.scalars(query.order_by(EnergyInterval.started_at)).all()


def _open(zone: str, job_id: str | ColumnElement[str]) -> tuple[ColumnElement[bool], ...]:
    return EnergyInterval.zone == zone, EnergyInterval.job_id == job_id, EnergyInterval.settled.is_(False)


def _each(job_ids: Collection[str]) -> TableValuedAlias:
    return func.unnest(literal(list(job_ids), ARRAY(String))).table_valued("id").render_derived(name="job")


def _meets(stretches: Sequence[TimeSpan], *, whole: bool) -> ColumnElement[bool]:
    """Return the condition that an interval is contained in one of these spans (`whole`), or overlaps one."""
    if not stretches:
        return false()
    starts, ends = ([stretch[edge] for stretch in stretches] for edge in (0, 1))
    times = ARRAY(DateTime(timezone=True))
    stretch = func.unnest(literal(starts, times), literal(ends, times)).table_valued("start", "end")
    stretch = stretch.render_derived(name="stretch")
    if whole:
        within = stretch.c.start <= EnergyInterval.started_at, stretch.c.end >= EnergyInterval.finished_at
    else:
        within = stretch.c.start < EnergyInterval.finished_at, stretch.c.end > EnergyInterval.started_at
    return exists(select(1).select_from(stretch).where(*within))
