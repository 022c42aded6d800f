"""`/dashboard/jobs/{id}`: one job with its epochs, events and result."""

from datetime import datetime

from fastapi import APIRouter, Response

from api.access.principal import PrincipalDep
from api.dashboard.jobs.job_comparison import compare_with_prediction
from api.dashboard.jobs.job_conditions import conditions_tag, load_conditions
from api.dashboard.jobs.job_tables import epoch_rows, event_rows, newest_epoch
from api.dashboard.jobs.job_tables import router as rows_router
from api.dashboard.page_tags import POLL_SECONDS, page_etag, with_etag
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.etags import IfNoneMatch, matches_etag, not_modified_response
from api.jobs.artifacts import ArtifactOut
from api.jobs.checkpoints import CheckpointOut
from api.jobs.endpoints import JobDep
from api.jobs.schemas import JobOut, jobs_out
from api.templating import render_page
from greencore.carbon.accounting.pricing import tracker_difference
from store.accounting.emissions import EmissionsRepository
from store.lifecycle.checkpoints import list_job_checkpoints
from store.lifecycle.status import FINAL
from store.repositories.jobs import JobRepository
from store.tables import Job

router = APIRouter()
router.include_router(rows_router)


@router.get("/dashboard/jobs/{job_id}")
def job_page(
    row: JobDep,
    principal: PrincipalDep,
    context: AppContextDep,
    session: SessionDep,
    now: NowDep,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Render a job's page, which polls until the job is over."""
    repository = JobRepository(session)
    conditions = conditions_tag(session, context.settings, row, now=now)
    running_seconds = _running_seconds(row, now)
    tag = page_etag(principal, row.id, row.revision, repository.newest_event_id(row.id), conditions, running_seconds)
    if matches_etag(if_none_match, tag):
        return not_modified_response(tag)
    [job] = jobs_out(session, [row])
    epochs = epoch_rows(session, job.id, before=newest_epoch(row) + 1)
    rendered = render_page(
        "job.html",
        title=f"{job.status} · {job.id}",
        here="job",
        principal=principal,
        job=job,
        conditions=load_conditions(session, context.settings, row, now=now),
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
    return with_etag(rendered, tag)


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
