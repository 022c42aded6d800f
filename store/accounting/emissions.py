"""Queries on the emissions of jobs, whose prices are provisional until the source has published measured values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, exists, func, or_, select, update

from greencore.carbon import Basis
from store.database import Repository
from store.lifecycle.status import FINAL
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval, Job


@dataclass(frozen=True)
class UnpricedJobEnergy:
    """Energy of a job without a price: kWh as metered, and kWh drawn by its site (metered times PUE)."""

    energy_kwh: float
    drawn_kwh: float


class EmissionsRepository(Repository):
    """Queries on priced energy."""

    def reopen_prices(
        self, zone: str, basis: Basis, spans: Sequence[tuple[datetime, datetime]], *, final_before: datetime
    ) -> None:
        """Make settled prices of a zone's energy within `spans` provisional again, after its intensity was revised.

        Affects jobs priced on `basis`, and energy used after `final_before`.
        """
        within = or_(
            *(and_(EnergyInterval.started_at < end, EnergyInterval.finished_at > start) for start, end in spans)
        )
        revised = and_(EnergyInterval.zone == zone, EnergyInterval.finished_at >= final_before, within)
        ids = select(EnergyInterval.job_id).where(revised)
        jobs = select(Job.id).where(
            func.coalesce(Job.signal, "average") == basis.signal,
            func.coalesce(Job.emission_factors, "lifecycle") == basis.emission_factors,
            Job.id.in_(ids),
        )
        # Lock the jobs first, ordered by id: a transaction that prices a job's energy locks its row. A price computed
        # from the previous value is visible as settled only once that lock is granted.
        locked = self._session.scalars(jobs.order_by(Job.id).with_for_update()).all()
        if not locked:
            return
        reopened = (
            update(EnergyInterval)
            .where(EnergyInterval.job_id.in_(locked), EnergyInterval.settled.is_(True), revised)
            .values(settled=False)
            .returning(EnergyInterval.job_id)
        )
        job_ids = set(self._session.scalars(reopened))
        self._session.execute(update(Job).where(Job.id.in_(job_ids)).values(settled_at=None))

    def update_job_emissions(self, job: Job) -> None:
        """Set a locked job's emissions to the sum of its intervals'."""
        total = select(func.coalesce(func.sum(EnergyInterval.emissions_gco2e), 0.0)).where(
            EnergyInterval.job_id == job.id
        )
        job.emissions_gco2e = float(self._session.scalar(total) or 0.0)
        # Even if the sum is unchanged, the settled part of it is not.
        JobRepository(self._session).increment_revision(job)

    def lock_jobs_due_for_counterfactuals(self) -> Sequence[Job]:
        """Return locked ended jobs with energy that have no counterfactuals, or were settled since these were made."""
        open_interval = exists().where(EnergyInterval.job_id == Job.id, EnergyInterval.settled.is_(False))
        query = (
            select(Job)
            .where(
                Job.status.in_(FINAL),
                Job.energy_kwh > 0,
                Job.settled_at.is_(None),
                or_(Job.counterfactuals.is_(None), ~open_interval),
            )
            .order_by(Job.id)
            .limit(50)
            .with_for_update(skip_locked=True)
        )
        return self._session.scalars(query).all()

    def is_settled(self, job_id: str) -> bool:
        """Return whether the price of every interval of a job is final."""
        query = select(EnergyInterval.id).where(EnergyInterval.job_id == job_id, EnergyInterval.settled.is_(False))
        return self._session.scalar(query.limit(1)) is None

    def get_unpriced_energy(self, job_id: str) -> UnpricedJobEnergy:
        """Return the energy whose intensity is unknown."""
        energy = EnergyInterval.energy_kwh
        query = select(
            func.coalesce(func.sum(energy), 0.0), func.coalesce(func.sum(energy * EnergyInterval.pue), 0.0)
        ).where(EnergyInterval.job_id == job_id, EnergyInterval.emissions_gco2e.is_(None))
        return UnpricedJobEnergy(*self._session.execute(query).one())

    def run_hours(self, job_id: str) -> float:
        """Return the total hours of all attempts."""
        seconds = func.extract("epoch", EnergyInterval.finished_at - EnergyInterval.started_at)
        query = select(func.coalesce(func.sum(seconds), 0.0)).where(EnergyInterval.job_id == job_id)
        return float(self._session.scalar(query) or 0.0) / 3600

    def get_settlement_by_job(self, job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return by job the emissions with a final price (gCO2e), whether all are final, and the mean PUE."""
        settled = func.coalesce(func.sum(EnergyInterval.emissions_gco2e).filter(EnergyInterval.settled), 0.0)
        energy_kwh = func.sum(EnergyInterval.energy_kwh)
        drawn_kwh = func.sum(EnergyInterval.energy_kwh * EnergyInterval.pue)
        # Clamped: rounding can take a mean out of the range of its values.
        least, greatest = func.min(EnergyInterval.pue), func.max(EnergyInterval.pue)
        pue = func.greatest(least, func.least(greatest, func.coalesce(drawn_kwh / func.nullif(energy_kwh, 0.0), least)))
        query = (
            select(EnergyInterval.job_id, settled, func.bool_and(EnergyInterval.settled), pue)
            .where(EnergyInterval.job_id.in_(job_ids))
            .group_by(EnergyInterval.job_id)
        )
        return {
            job_id: {"settled_gco2e": float(total or 0.0), "settled": bool(whole), "pue": float(mean_pue)}
            for job_id, total, whole, mean_pue in self._session.execute(query)
        }
