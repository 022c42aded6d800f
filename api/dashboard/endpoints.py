"""`/`: the jobs, and `/dashboard/jobs/{id}`: one of them, for a browser."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from api.access.principal import PrincipalDep
from api.context import NowDep, SessionDep
from api.jobs.artifacts import ArtifactOut
from api.jobs.endpoints import JobDep
from api.jobs.epoch_schemas import EpochOut
from api.jobs.event_schemas import EventOut
from api.jobs.schemas import jobs_out
from api.templating import render
from greencore.carbon.accounting import tracker_difference
from store.jobs import JobRepository
from store.status import FINAL
from store.tables import Job

JOBS_ON_A_PAGE = 50
EVENTS_ON_A_PAGE = 100
EPOCHS_ON_A_PAGE = 200  # the newest, the one that runs included

router = APIRouter(include_in_schema=False)


@router.get("/")
def jobs_page(
    principal: PrincipalDep, session: SessionDep, after: Annotated[str | None, Query()] = None
) -> HTMLResponse:
    """The jobs, newest first; it renews itself while one of those shown has not ended."""
    page = JobRepository(session).page(limit=JOBS_ON_A_PAGE, after=after, owner=principal.scope)
    jobs = jobs_out(session, page.data)
    return render(
        "jobs.html",
        title="Jobs",
        principal=principal,
        jobs=jobs,
        older=jobs[-1].id if page.has_more else None,
        refresh=any(job.status not in FINAL for job in jobs),
    )


@router.get("/dashboard/jobs/{job_id}")
def job_page(row: JobDep, principal: PrincipalDep, session: SessionDep, now: NowDep) -> HTMLResponse:
    """One job with its epochs, its history and its result; it renews itself until the job has ended."""
    repository = JobRepository(session)
    [job] = jobs_out(session, [row])
    shown = repository.epoch_page(job.id, limit=EPOCHS_ON_A_PAGE, after=max(0, row.epochs_done + 1 - EPOCHS_ON_A_PAGE))
    costs = repository.epoch_costs(job.id, epochs=[epoch.number for epoch in shown.data])
    epochs = [EpochOut.of(epoch, costs.get(epoch.number)) for epoch in shown.data]
    return render(
        "job.html",
        title=job.id,
        principal=principal,
        job=job,
        epochs=epochs,
        tracker_difference=_tracker_difference(row),
        events=[EventOut.of(event) for event in repository.events(job.id, limit=EVENTS_ON_A_PAGE).data],
        artifacts=[ArtifactOut.of(artifact) for artifact in repository.artifacts(job.id)],
        running_seconds=((job.finished_at or now) - job.started_at).total_seconds() if job.started_at else None,
        refresh=job.status not in FINAL,
    )


def _tracker_difference(job: Job) -> float | None:
    """Only once a job is over: the total of an attempt comes with its end."""
    return tracker_difference(job.energy_kwh, job.tracker_kwh) if job.status in FINAL else None
