"""`/dashboard/jobs/{id}`: one job with its epochs, its history and its result."""

from fastapi import APIRouter, Response

from api.access.principal import PrincipalDep
from api.context import NowDep, SessionDep
from api.dashboard.page_tags import POLL_SECONDS, page_tag, tagged
from api.jobs.artifacts import ArtifactOut
from api.jobs.caching import IfNoneMatch, matches, not_modified
from api.jobs.endpoints import JobDep
from api.jobs.epoch_schemas import EpochOut
from api.jobs.event_schemas import EventOut
from api.jobs.schemas import jobs_out
from api.templating import render
from greencore.carbon.accounting import tracker_difference
from store.jobs import JobRepository
from store.status import FINAL
from store.tables import Job

EVENTS_ON_A_PAGE = 50
EPOCHS_ON_A_PAGE = 50  # the newest, the one that runs included

router = APIRouter()


@router.get("/dashboard/jobs/{job_id}")
def job_page(
    row: JobDep, principal: PrincipalDep, session: SessionDep, now: NowDep, if_none_match: IfNoneMatch = None
) -> Response:
    """It renews itself until the job has ended."""
    repository = JobRepository(session)
    tag = page_tag(principal, row.id, row.revision, repository.newest_event(row.id))
    if if_none_match is not None and matches(if_none_match, tag):
        return not_modified(tag)
    [job] = jobs_out(session, [row])
    shown = repository.epoch_page(job.id, limit=EPOCHS_ON_A_PAGE, after=max(0, row.epochs_done + 1 - EPOCHS_ON_A_PAGE))
    costs = repository.epoch_costs(job.id, epochs=[epoch.number for epoch in shown.data])
    rendered = render(
        "job.html",
        title=job.id,
        here="job",
        principal=principal,
        job=job,
        epochs=[EpochOut.of(epoch, costs.get(epoch.number)) for epoch in shown.data],
        tracker_difference=_tracker_difference(row),
        events=[EventOut.of(event) for event in repository.events(job.id, limit=EVENTS_ON_A_PAGE).data],
        artifacts=[ArtifactOut.of(artifact) for artifact in repository.artifacts(job.id)],
        running_seconds=((job.finished_at or now) - job.started_at).total_seconds() if job.started_at else None,
        poll_seconds=None if job.status in FINAL else POLL_SECONDS,
    )
    return tagged(rendered, tag)


def _tracker_difference(job: Job) -> float | None:
    """Only once a job is over: the total of an attempt comes with its end."""
    return tracker_difference(job.energy_kwh, job.tracker_kwh) if job.status in FINAL else None
