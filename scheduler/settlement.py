"""Settles prices of metered energy once measured readings exist, and computes each job's counterfactuals."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from greencore.carbon import IntensitySeries, price_interval
from greencore.carbon.accounting.pricing import covered_spans, is_settled, known_emissions
from runtime.settings import Settings
from store.accounting.emissions import EmissionsRepository
from store.accounting.job_account import compute_counterfactuals
from store.accounting.settlement_queries import OpenEnergy, SettlementCriteria, SettlementRepository
from store.database import Database, isolate_errors
from store.intensity.readings import GridRepository
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval

log = structlog.get_logger()

INSTANT = timedelta(microseconds=1)
# Keep a tick short: the most intervals that it prices, or closes without a new price, shared among the zones and their
# jobs.
MAX_PRICED_PER_TICK = 2000
MIN_PER_ZONE = 50
MIN_PER_JOB = 100
MAX_CLOSED_PER_TICK = 20_000


@dataclass(frozen=True)
class _EnergySpan:
    """A stored interval in the form that `greencore.carbon.price_interval` takes."""

    start: datetime
    end: datetime
    energy_kwh: float


def settle_prices(database: Database, settings: Settings, *, at: datetime) -> None:
    """Price the energy that measured readings cover, and close prices older than `settle_after`.

    Each zone has a share of the work, and each job a share of its zone's, so that energy which no reading ever covers
    does not block the rest. Errors of one job or zone are logged, and the others go on.
    """
    final_before = at - settings.settle_after
    with database.session() as session:
        zones = SettlementRepository(session).open_energy()
    for energy in zones:
        with isolate_errors("settlement.failed", zone=energy.zone):
            _settle_zone(database, settings, energy, final_before=final_before, zones=len(zones))


def _settle_zone(
    database: Database, settings: Settings, energy: OpenEnergy, *, final_before: datetime, zones: int
) -> None:
    share = max(MIN_PER_ZONE, MAX_PRICED_PER_TICK // zones)
    each = max(MIN_PER_JOB, share // len(energy.job_ids))
    closed_each = max(MIN_PER_JOB, MAX_CLOSED_PER_TICK // zones // len(energy.job_ids))
    with database.session() as session:
        repository = SettlementRepository(session)
        readings = GridRepository(session).readings_between(energy.zone, energy.basis, energy.start, energy.end)
        known = IntensitySeries()
        if (unpriced := repository.unpriced_span(energy)) is not None:
            known = GridRepository(session).series_with_fallback(energy.zone, energy.basis, *unpriced, settings)
        when = SettlementCriteria(
            measured=covered_spans(reading for reading in readings if not reading.estimated),
            known=covered_spans(known),
            final_before=final_before,
        )
        due = repository.find_intervals_to_price(energy, when, limit=share, each=each)
        closing = repository.find_jobs_to_close(energy, when)
    for job_id in sorted({*due, *closing}):
        with isolate_errors("settlement.failed", zone=energy.zone, job=job_id), database.session() as session:
            job = JobRepository(session).lock(job_id)
            if job is None:
                continue
            repository = SettlementRepository(session)
            intervals = repository.intervals(due.get(job_id, []))
            if intervals:
                span = min(each.started_at for each in intervals), max(each.finished_at for each in intervals)
                grid = GridRepository(session)
                _price_intervals(intervals, grid.series_with_fallback(energy.zone, energy.basis, *span, settings))
                session.flush()
                if "missing" in (job.counterfactuals or {}):
                    job.counterfactuals = None  # a price may be known now
            repository.close(energy.zone, job_id, when, limit=closed_each)
            EmissionsRepository(session).update_job_emissions(job)


def _price_intervals(intervals: Sequence[EnergyInterval], series: IntensitySeries) -> None:
    """Set the price of each interval from `series`; an interval that it does not cover stays unpriced."""
    for interval in intervals:
        span = _EnergySpan(interval.started_at, interval.finished_at, interval.energy_kwh)
        known = IntensitySeries(series.overlapping(span.start, max(span.end, span.start + INSTANT)))
        if not len(known):
            continue
        priced = price_interval(span, known, pue=interval.pue)
        interval.intensity_gco2e_per_kwh = priced.intensity_gco2e_per_kwh
        interval.intensity_source = ", ".join(priced.sources)
        interval.intensity_estimated = priced.estimated
        interval.emissions_gco2e = priced.emissions_gco2e
        interval.settled = is_settled(span, known)


def store_counterfactuals(database: Database, settings: Settings, *, at: datetime) -> None:
    """Store the counterfactuals and savings of ended jobs: at their end, and again when their price is final."""
    with database.session() as session:
        emissions = EmissionsRepository(session)
        for job in emissions.lock_jobs_due_for_counterfactuals():
            is_settled = emissions.is_settled(job.id)
            unpriced = emissions.get_unpriced_energy(job.id)
            counterfactuals: dict[str, Any] = {"missing": "the computation failed; the scheduler's log has the error"}
            with isolate_errors("account.failed", job=job.id):
                counterfactuals = compute_counterfactuals(session, job, settings)
            job.counterfactuals = counterfactuals
            if is_settled:
                job.settled_at = at
                known_gco2e = known_emissions(
                    job.emissions_gco2e, energy_kwh=job.energy_kwh, unpriced_kwh=unpriced.energy_kwh
                )
                totals = {"emissions_gco2e": known_gco2e, "unpriced_kwh": unpriced.energy_kwh}
                JobRepository(session).record(job.id, "emissions.settled", at=at, **totals)
                log.info("emissions.settled", job=job.id, **totals)
