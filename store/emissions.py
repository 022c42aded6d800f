"""The emissions aggregate: prices that are provisional until the source has measured, and what they add up to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from greencore.carbon import Signal
from store.jobs import JobRepository
from store.status import FINAL
from store.tables import EnergyInterval, Epoch, IntensityReading, Job


@dataclass(frozen=True)
class Metered:
    """What a job has used: kWh before PUE, hours of computing, FLOPs of its steps and had all tensors been trained."""

    energy_kwh: float
    run_hours: float
    flops: float
    full_flops: float


class EmissionsRepository:
    """Queries on priced energy, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def to_price(self, *, final_before: datetime, limit: int = 2000) -> Sequence[tuple[EnergyInterval, Job]]:
        """Provisional intervals that can be priced anew, with their jobs; the oldest first.

        Those that measured readings reach by now, those that had no price, and those that ended before
        `final_before`, whose price stays as it is.
        """
        measured = exists().where(
            and_(
                IntensityReading.zone == Job.zone,
                IntensityReading.signal == Job.signal,
                IntensityReading.estimated.is_(False),
                IntensityReading.start <= EnergyInterval.started_at,
                IntensityReading.end > EnergyInterval.started_at,
            )
        )
        query = (
            select(EnergyInterval, Job)
            .join(Job, Job.id == EnergyInterval.job_id)
            .where(
                EnergyInterval.settled.is_(False),
                or_(measured, EnergyInterval.emissions_gco2e.is_(None), EnergyInterval.finished_at < final_before),
            )
            .order_by(EnergyInterval.finished_at)
            .limit(limit)
        )
        return [(interval, job) for interval, job in self._session.execute(query)]

    def reopen(
        self, zone: str, signal: Signal, spans: Sequence[tuple[datetime, datetime]], *, final_before: datetime
    ) -> None:
        """Make settled prices of a zone's energy within `spans` provisional again: their intensity was revised.

        Prices of energy used before `final_before` stay as they are.
        """
        within = or_(
            *(and_(EnergyInterval.started_at < end, EnergyInterval.finished_at > start) for start, end in spans)
        )
        reopened = EnergyInterval.settled.is_(True) & (EnergyInterval.finished_at >= final_before) & within
        ids = select(EnergyInterval.job_id).where(reopened)
        jobs = select(Job.id).where(Job.zone == zone, Job.signal == signal, Job.id.in_(ids))
        # The jobs first, in one order: whoever prices a job's energy holds its row.
        locked = self._session.scalars(jobs.order_by(Job.id).with_for_update()).all()
        if not locked:
            return
        self._session.execute(
            update(EnergyInterval).where(EnergyInterval.job_id.in_(locked), reopened).values(settled=False)
        )
        self._session.execute(update(Job).where(Job.id.in_(locked)).values(settled_at=None))

    def add_up(self, job: Job) -> None:
        """Make a locked job's emissions the sum of its intervals', of which some have a new price or a final one."""
        total = select(func.coalesce(func.sum(EnergyInterval.emissions_gco2e), 0.0)).where(
            EnergyInterval.job_id == job.id
        )
        job.emissions_gco2e = float(self._session.scalar(total) or 0.0)
        # The sum may be the same, and how much of it is final is not.
        JobRepository(self._session).touch(job)

    def to_account(self) -> Sequence[Job]:
        """Locked jobs that are over and have used energy, without an account, or settled since it was made."""
        open_interval = exists().where(and_(EnergyInterval.job_id == Job.id, EnergyInterval.settled.is_(False)))
        query = (
            select(Job)
            .where(
                Job.status.in_(FINAL),
                Job.energy_kwh > 0,
                or_(Job.counterfactuals.is_(None), and_(Job.settled_at.is_(None), ~open_interval)),
            )
            .order_by(Job.id)
            .limit(50)
            .with_for_update(skip_locked=True)
        )
        return self._session.scalars(query).all()

    def is_settled(self, job_id: str) -> bool:
        """Whether every interval's price is final."""
        query = select(EnergyInterval.id).where(EnergyInterval.job_id == job_id, EnergyInterval.settled.is_(False))
        return self._session.scalar(query.limit(1)) is None

    def metered(self, job_id: str) -> Metered:
        """What all attempts used together."""
        seconds = func.extract("epoch", EnergyInterval.finished_at - EnergyInterval.started_at)
        energy = select(
            func.coalesce(func.sum(EnergyInterval.energy_kwh), 0.0), func.coalesce(func.sum(seconds), 0.0)
        ).where(EnergyInterval.job_id == job_id)
        kwh, total_seconds = self._session.execute(energy).one()
        work = select(func.coalesce(func.sum(Epoch.flops), 0.0), func.coalesce(func.sum(Epoch.full_flops), 0.0)).where(
            Epoch.job_id == job_id
        )
        flops, full_flops = self._session.execute(work).one()
        return Metered(float(kwh or 0), float(total_seconds) / 3600, float(flops or 0), float(full_flops or 0))

    def by_settlement(self, job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Of each job the emissions whose price is final in gCO2e, whether all are, and the mean PUE of its energy."""
        settled = func.coalesce(func.sum(EnergyInterval.emissions_gco2e).filter(EnergyInterval.settled), 0.0)
        energy_kwh = func.sum(EnergyInterval.energy_kwh)
        drawn_kwh = func.sum(EnergyInterval.energy_kwh * EnergyInterval.pue)
        pue = func.coalesce(drawn_kwh / func.nullif(energy_kwh, 0.0), 1.0)
        query = (
            select(EnergyInterval.job_id, settled, func.bool_and(EnergyInterval.settled), pue)
            .where(EnergyInterval.job_id.in_(job_ids))
            .group_by(EnergyInterval.job_id)
        )
        return {
            job_id: {"settled_gco2e": float(total or 0.0), "settled": bool(whole), "pue": float(mean_pue)}
            for job_id, total, whole, mean_pue in self._session.execute(query)
        }
