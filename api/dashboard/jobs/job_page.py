"""`/dashboard/jobs/{id}`: one job with its epochs, events and result."""

from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from api.dashboard.jobs.job_comparison import compare_with_prediction
from api.dashboard.jobs.job_conditions import conditions_tag, load_conditions
from api.dashboard.jobs.job_tables import epoch_rows, event_rows, newest_epoch
from api.dashboard.jobs.job_tables import router as rows_router
from api.dashboard.page import POLL_SECONDS, PageDep
from api.jobs.artifacts import ArtifactOut
from api.jobs.endpoints import JobDep
from api.jobs.schemas import CheckpointOut, JobOut, jobs_out
from greencore.carbon.accounting.pricing import tracker_difference
from store.accounting.emissions import EmissionsRepository
from store.lifecycle.checkpoints import list_job_checkpoints
from store.lifecycle.status import FINAL
from store.repositories.jobs import JobRepository
from store.tables import Job

router = APIRouter()
router.include_router(rows_router)


@router.get("/dashboard/jobs/{job_id}")
def job_page(row: JobDep, page: PageDep) -> HTMLResponse:
    """Render a job's page, which polls until the job is over."""
    session, settings, now = page.session, page.context.settings, page.now
    repository = JobRepository(session)
    conditions = conditions_tag(session, settings, row, now=now)
    running_seconds = _running_seconds(row, now)
    page.check_etag(row.id, row.revision, repository.newest_event_id(row.id), conditions, running_seconds)
    [job] = jobs_out(session, [row])
    epochs = epoch_rows(session, job.id, before=newest_epoch(row) + 1)
    return page.render(
        "job.html",
        title=f"{job.status} · {job.id}",
        here="job",
        job=job,
        conditions=load_conditions(session, settings, row, now=now),
        over=job.status in FINAL,
        epochs=epochs,
        newest=epochs.data[0] if epochs.data else None,
        mean_gco2e_per_kwh=_mean_intensity(job),
        tracker_difference=_tracker_difference(row),
        comparison=compare_with_prediction(session, row, pue=job.emissions_basis.pue) if job.emissions_basis else None,
        metered_hours=EmissionsRepository(session).run_hours(job.id) if job.counterfactuals else None,
        events=event_rows(session, job.id),
        artifacts=[ArtifactOut.of(artifact) for artifact in repository.artifacts(job.id)],
        files_removed_at=row.files_removed_at,
        checkpoints=[CheckpointOut.from_row(checkpoint) for checkpoint in list_job_checkpoints(session, job.id)],
        running_seconds=running_seconds,
        poll_seconds=None if job.status in FINAL else POLL_SECONDS,
    )


def _running_seconds(job: Job, now: datetime) -> float | None:
    """Seconds from the first start to the end; whole minutes until then, as each change renders the page again."""
    if job.started_at is None:
        return None
    seconds = ((job.finished_at or now) - job.started_at).total_seconds()
    return seconds if job.finished_at is not None else seconds // 60 * 60


def _mean_intensity(job: JobOut) -> float | None:
    """Mean emissions of a kWh that the site drew (gCO2e/kWh); None while part of the energy is unpriced."""
    basis = job.emissions_basis
    if basis is None or basis.unpriced_kwh or not job.energy_kwh:
        return None
    return job.emissions_gco2e / (job.energy_kwh * basis.pue)


def _tracker_difference(job: Job) -> float | None:
    """Relative difference from CodeCarbon's total; None before the end, when an attempt's total arrives."""
    return tracker_difference(job.energy_kwh, job.tracker_kwh) if job.status in FINAL else None
