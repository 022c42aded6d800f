"""`/`: the jobs, and `/dashboard/jobs/{id}`: one of them, for a browser."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from api.context import NowDep, SessionDep
from api.jobs.endpoints import JobDep
from api.jobs.schemas import ArtifactOut, EpochOut, EventOut, JobOut
from api.templating import render
from greencore.energy import is_estimate
from store.jobs import JobRepository
from store.status import FINAL

JOBS_ON_A_PAGE = 50
EVENTS_ON_A_PAGE = 100

router = APIRouter(include_in_schema=False)


@router.get("/")
def jobs_page(session: SessionDep, after: Annotated[str | None, Query()] = None) -> HTMLResponse:
    """The jobs, newest first; it renews itself while one of those shown has not ended."""
    repository = JobRepository(session)
    page = repository.page(limit=JOBS_ON_A_PAGE, after=after)
    bases = repository.emissions_basis([job.id for job in page.data])
    jobs = [JobOut.of(job, bases.get(job.id)) for job in page.data]
    return render(
        "jobs.html",
        title="Jobs",
        jobs=jobs,
        energy_is_estimated={job.id: _any_estimate(_ways(job)) for job in jobs},
        older=jobs[-1].id if page.has_more else None,
        refresh=any(job.status not in FINAL for job in jobs),
    )


@router.get("/dashboard/jobs/{job_id}")
def job_page(row: JobDep, session: SessionDep, now: NowDep) -> HTMLResponse:
    """One job with its epochs, its history and its result; it renews itself until the job has ended."""
    repository = JobRepository(session)
    job = JobOut.of(row, repository.emissions_basis([row.id]).get(row.id))
    costs = repository.epoch_costs(job.id)
    epochs = [EpochOut.of(epoch, costs.get(epoch.number)) for epoch in repository.epochs(job.id)]
    return render(
        "job.html",
        title=job.id,
        job=job,
        energy_is_estimated=_any_estimate(_ways(job)),
        epochs=epochs,
        epoch_is_estimated={
            epoch.number: _any_estimate(epoch.energy.methods.values() if epoch.energy else ()) for epoch in epochs
        },
        events=[EventOut.of(event) for event in repository.events(job.id, limit=EVENTS_ON_A_PAGE).data],
        artifacts=[ArtifactOut.of(artifact) for artifact in repository.artifacts(job.id)],
        running_seconds=((job.finished_at or now) - job.started_at).total_seconds() if job.started_at else None,
        refresh=job.status not in FINAL,
    )


def _ways(job: JobOut) -> Iterable[str]:
    basis = job.emissions_basis
    return [way for ways in basis.energy_methods.values() for way in ways] if basis else []


def _any_estimate(methods: Iterable[str]) -> bool:
    """Whether any part of the energy was reckoned instead of read from a meter."""
    return any(map(is_estimate, methods))
