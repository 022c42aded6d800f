"""`/dashboard/workers`: the service's processes, and the jobs that they hold."""

from datetime import timedelta

from fastapi import APIRouter, Response

from api.access.principal import PrincipalDep
from api.dashboard.page_tags import POLL_SECONDS, page_etag, with_etag
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.etags import IfNoneMatch, matches_etag, not_modified_response
from api.jobs.schemas import jobs_out
from api.templating import render_page
from api.workers.endpoints import LOST_WORKER_SHOWN_FOR, WorkerOut
from store.accounting.energy_totals import idle_energy_by_zone
from store.repositories.workers import WorkerRepository

# Training workers first, busy ones before idle ones.
ROLE_ORDER = {"train": 0, "prepare": 1, "scheduler": 2}
STATE_ORDER = {"busy": 0, "idle": 1, "running": 1, "lost": 2}

router = APIRouter()


@router.get("/dashboard/workers")
def workers_page(
    principal: PrincipalDep,
    context: AppContextDep,
    session: SessionDep,
    now: NowDep,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Render live workers and those lost within the last hour, each with its job."""
    alive_since = now - timedelta(seconds=context.settings.lease_seconds)
    idle_kwh = idle_energy_by_zone(session)
    seen = WorkerRepository(session).list_with_jobs(since=alive_since - LOST_WORKER_SHOWN_FOR)
    workers = [
        WorkerOut.of(worker, job, principal=principal, alive_since=alive_since, idle_kwh=idle_kwh)
        for worker, job in seen
    ]
    held = [job for _, job in seen if job is not None and principal.can_read(job.owner)]
    shown = [worker.model_dump(mode="json") for worker in workers]
    tag = page_etag(principal, shown, [(job.id, job.revision) for job in held])
    if matches_etag(if_none_match, tag):
        return not_modified_response(tag)
    workers.sort(key=lambda worker: (ROLE_ORDER[worker.role], STATE_ORDER[worker.state], worker.id))
    rendered = render_page(
        "workers.html",
        title="Workers",
        here="workers",
        principal=principal,
        workers=workers,
        jobs={job.id: job for job in jobs_out(session, held)},
        trains=any(worker.role == "train" and worker.state != "lost" for worker in workers),
        poll_seconds=POLL_SECONDS,
    )
    return with_etag(rendered, tag)
