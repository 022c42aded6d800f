"""Prices metered energy anew once the source has measured, and says what each job would have emitted otherwise."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import groupby

import structlog
from sqlalchemy.orm import Session

from greencore.carbon import IntensitySeries, NoReading, price
from greencore.carbon.accounting import settled
from greencore.carbon.counterfactuals import counterfactuals, savings
from store.database import Database
from store.emissions import EmissionsRepository
from store.grid import GridRepository, signal_named
from store.jobs import JobRepository
from store.settings import Settings
from store.tables import EnergyInterval, Job

log = structlog.get_logger()


@dataclass(frozen=True)
class _Span:
    """A stored interval as `greencore.carbon.price` takes it."""

    start: datetime
    end: datetime
    energy_kwh: float


def settle_prices(database: Database, settings: Settings, *, at: datetime) -> None:
    """Price every provisional interval that can be: with what was measured, or for good after a time without."""
    final_before = at - settings.settle_after
    with database.session() as session:
        emissions = EmissionsRepository(session)
        due = emissions.to_price(final_before=final_before)
        by_job = groupby(sorted(due, key=lambda row: row[1].id), key=lambda row: row[1].id)
        for job_id, rows in by_job:
            job = JobRepository(session).lock(job_id)
            if job is None or job.zone is None:
                continue
            intervals = [interval for interval, _ in rows]
            _price(session, job, intervals, settings, final_before=final_before)
            if any(session.is_modified(interval) for interval in intervals):
                session.flush()
                emissions.add_up(job)


def account(database: Database, settings: Settings, *, at: datetime) -> None:
    """Give every job that is over its counterfactuals and savings: at its end, and again when its price is final."""
    with database.session() as session:
        emissions = EmissionsRepository(session)
        for job in emissions.to_account():
            is_settled = emissions.is_settled(job.id)
            job.counterfactuals = _counterfactuals(session, job, settings)
            if is_settled:
                job.settled_at = at
                JobRepository(session).record(job.id, "emissions.settled", at=at, emissions_gco2e=job.emissions_gco2e)
                log.info("emissions.settled", job=job.id, emissions_gco2e=job.emissions_gco2e)


def _price(
    session: Session, job: Job, intervals: list[EnergyInterval], settings: Settings, *, final_before: datetime
) -> None:
    start = min(interval.started_at for interval in intervals)
    end = max(interval.finished_at for interval in intervals)
    series = known_series(session, job, start, max(end, start + timedelta(seconds=1)), settings)
    if not len(series):
        return
    for interval in intervals:
        span = _Span(interval.started_at, interval.finished_at, interval.energy_kwh)
        is_settled = settled(span, series)
        covered = series.mean(span.start, span.end).covered_share
        if covered < 1 and not interval.finished_at < final_before:
            continue
        if is_settled or interval.emissions_gco2e is None:
            priced = price(span, series, pue=interval.pue)
            interval.intensity_gco2e_per_kwh = priced.intensity_gco2e_per_kwh
            interval.intensity_source = ", ".join(priced.sources)
            interval.intensity_estimated = priced.estimated
            interval.emissions_gco2e = priced.emissions_gco2e
        interval.settled = is_settled or interval.finished_at < final_before


def known_series(session: Session, job: Job, start: datetime, end: datetime, settings: Settings) -> IntensitySeries:
    """What the fallback chain knows of a job's zone from `start` to `end`; times to come by the forecast."""
    assert job.zone is not None
    signal = signal_named(job.signal)
    return GridRepository(session).filled(job.zone, signal, start, end, stale_limit=settings.stale_limit)


def _counterfactuals(session: Session, job: Job, settings: Settings) -> dict[str, object]:
    metered = EmissionsRepository(session).metered(job.id)
    begins, ends = job.ready_at or job.created_at, job.finished_at
    if ends is None or metered.run_hours <= 0 or metered.full_flops <= 0:
        return {"missing": "no epoch was finished, so there is nothing to compare"}
    share = min(1.0, metered.flops / metered.full_flops)
    longest = begins + timedelta(hours=metered.run_hours / share)
    series = known_series(session, job, begins, max(ends, longest, job.deadline or ends), settings)
    try:
        estimates = counterfactuals(
            energy_kwh=metered.energy_kwh,
            run_hours=metered.run_hours,
            share=share,
            could_start=begins,
            deadline=job.deadline,
            finished=ends,
            series=series,
            pue=EmissionsRepository(session).by_settlement([job.id])[job.id]["pue"],
        )
    except NoReading as error:
        return {"missing": str(error)}
    by_name = {estimate.name: estimate for estimate in estimates}
    saved = savings(
        full_gco2e=by_name["full_now"].emissions_gco2e,
        constant_gco2e=by_name["constant_now"].emissions_gco2e,
        actual_gco2e=job.emissions_gco2e,
    )
    return {
        **{
            estimate.name: {**asdict(estimate), "start": estimate.start.isoformat(), "end": estimate.end.isoformat()}
            for estimate in estimates
        },
        "less_work_saving": saved.less_work,
        "moved_in_time_saving": saved.moved_in_time,
    }
