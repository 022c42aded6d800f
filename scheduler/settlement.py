"""Prices metered energy anew once the source has measured, and says what each job would have emitted otherwise."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from greencore.carbon import IntensitySeries, price_interval
from greencore.carbon.accounting.pricing import (
    TimeSpan,
    covered_spans,
    is_settled,
    known_emissions,
)
from runtime.settings import Settings
from store.accounting.emissions import EmissionsRepository
from store.accounting.job_account import compute_counterfactuals
from store.accounting.settlement import OpenEnergy, SettlementCriteria, SettlementRepository
from store.database import Database
from store.intensity.readings import GridRepository
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval, Job

log = structlog.get_logger()

INSTANT = timedelta(microseconds=1)
# A tick must not be long: so many intervals get a new price in it, or are closed as they are, shared out among the
# zones, and among their jobs.
MAX_PRICED_PER_TICK = 2000
MIN_PER_ZONE = 50
MIN_PER_JOB = 100
MAX_CLOSED_PER_TICK = 20_000


@dataclass(frozen=True)
class _EnergySpan:
    """A stored interval as `greencore.carbon.price_interval` takes it."""

    start: datetime
    end: datetime
    energy_kwh: float


def settle_prices(database: Database, settings: Settings, *, at: datetime) -> None:
    """Price the energy that measured readings cover by now, and make final what is too old for any to come.

    Each zone has its share of the work, and each job its share of its zone's: energy that no reading ever covers keeps
    no other waiting. What fails for one job or zone is logged, and the others go on.
    """
    final_before = at - settings.settle_after
    with database.session() as session:
        zones = SettlementRepository(session).open_energy()
    for energy in zones:
        with _log_errors(zone=energy.zone):
            _settle_zone(database, settings, energy, final_before=final_before, zones=len(zones))


def _settle_zone(
    database: Database, settings: Settings, energy: OpenEnergy, *, final_before: datetime, zones: int
) -> None:
    share = max(MIN_PER_ZONE, MAX_PRICED_PER_TICK // zones)
    each = max(MIN_PER_JOB, share // len(energy.job_ids))
    closed_each = max(MIN_PER_JOB, MAX_CLOSED_PER_TICK // zones // len(energy.job_ids))
    with database.session() as session:
        repository = SettlementRepository(session)
        when = SettlementCriteria(
            measured=_measured_spans(session, energy),
            known=_known_spans(session, energy, repository.unpriced_span(energy), settings),
            final_before=final_before,
        )
        due = repository.find_intervals_to_price(energy, when, limit=share, each=each)
        closing = repository.find_jobs_to_close(energy, when)
    for job_id in sorted({*due, *closing}):
        with _log_errors(zone=energy.zone, job=job_id), database.session() as session:
            job = JobRepository(session).lock(job_id)
            if job is None:
                continue
            repository = SettlementRepository(session)
            intervals = repository.intervals(due.get(job_id, []))
            if intervals:
                _price_intervals(intervals, _load_intensity(session, energy, _enclosing_span(intervals), settings))
                session.flush()
                if "missing" in (job.counterfactuals or {}):
                    job.counterfactuals = None  # there may be something to compare now
            repository.close(energy.zone, job_id, when, limit=closed_each)
            EmissionsRepository(session).update_job_emissions(job)


def _measured_spans(session: Session, energy: OpenEnergy) -> list[TimeSpan]:
    """When measured readings cover the time of a zone's open energy."""
    end = max(energy.end, energy.start + INSTANT)
    basis = energy.basis
    readings = GridRepository(session).readings_between(
        energy.zone, basis.signal, energy.start, end, emission_factors=basis.emission_factors
    )
    return covered_spans(reading for reading in readings if not reading.estimated)


def _known_spans(session: Session, energy: OpenEnergy, unpriced: TimeSpan | None, settings: Settings) -> list[TimeSpan]:
    """When an intensity is known, measured or not, of the time of energy that has no price."""
    return [] if unpriced is None else covered_spans(_load_intensity(session, energy, unpriced, settings))


def _load_intensity(session: Session, energy: OpenEnergy, span: TimeSpan, settings: Settings) -> IntensitySeries:
    """What the fallback chain knows of a zone during a span of time."""
    start, end = span[0], max(span[1], span[0] + INSTANT)
    static = settings.static_mean(energy.zone)
    return GridRepository(session).series_with_fallback(
        energy.zone, energy.basis, start, end, stale_limit=settings.stale_limit, static=static
    )


def _enclosing_span(intervals: Sequence[EnergyInterval]) -> TimeSpan:
    return min(each.started_at for each in intervals), max(each.finished_at for each in intervals)


def _price_intervals(intervals: Sequence[EnergyInterval], series: IntensitySeries) -> None:
    """Give intervals the price that `series` has for their own time; one of which it knows nothing stays without."""
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


@contextmanager
def _log_errors(**of: str | None) -> Iterator[None]:
    """Keep what fails for one job or zone from holding up the others. Raises `DBAPIError` alone."""
    try:
        yield
    except DBAPIError:
        raise
    except Exception as fault:
        log.exception("settlement.failed", exc_info=fault, **of)


def store_counterfactuals(database: Database, settings: Settings, *, at: datetime) -> None:
    """Give every job that is over its counterfactuals and savings: at its end, and again when its price is final."""
    with database.session() as session:
        emissions = EmissionsRepository(session)
        for job in emissions.lock_jobs_due_for_counterfactuals():
            is_settled = emissions.is_settled(job.id)
            unpriced = emissions.get_unpriced_energy(job.id)
            job.counterfactuals = _compute_counterfactuals(session, job, settings)
            if is_settled:
                job.settled_at = at
                known_gco2e = known_emissions(
                    job.emissions_gco2e, energy_kwh=job.energy_kwh, unpriced_kwh=unpriced.energy_kwh
                )
                totals = {"emissions_gco2e": known_gco2e, "unpriced_kwh": unpriced.energy_kwh}
                JobRepository(session).record(job.id, "emissions.settled", at=at, **totals)
                log.info("emissions.settled", job=job.id, **totals)


def _compute_counterfactuals(session: Session, job: Job, settings: Settings) -> dict[str, object]:
    """A job's account. One that fails must not keep the others from theirs, for good: the job then says so."""
    try:
        return compute_counterfactuals(session, job, settings)
    except DBAPIError:
        raise
    except Exception as fault:
        log.exception("account.failed", job=job.id, exc_info=fault)
        return {"missing": "the comparison failed; the scheduler's log says why"}
