"""`/dashboard/workers`: the service's processes, and the jobs that they hold."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from api.dashboard.page import POLL_SECONDS, PageDep
from api.jobs.schemas import jobs_out
from api.workers.endpoints import load_workers

# Training workers first, busy ones before idle ones.
ROLE_ORDER = {"train": 0, "prepare": 1, "scheduler": 2}
STATE_ORDER = {"busy": 0, "idle": 1, "running": 1, "lost": 2}

router = APIRouter()


@router.get("/dashboard/workers")
def workers_page(page: PageDep) -> HTMLResponse:
    """Render live workers and those lost within the last hour, each with its jobs."""
    seen = load_workers(page.principal, page.context, page.session, page.now)
    workers = [worker for worker, _ in seen]
    held = [job for _, jobs in seen for job in jobs if page.principal.can_read(job.owner)]
    page.check_etag([worker.model_dump(mode="json") for worker in workers], [(job.id, job.revision) for job in held])
    workers.sort(key=lambda worker: (ROLE_ORDER[worker.role], STATE_ORDER[worker.state], worker.id))
    return page.render(
        "workers.html",
        title="Workers",
        here="workers",
        workers=workers,
        jobs={job.id: job for job in jobs_out(page.session, held)},
        hidden={worker.id: len(jobs) - len(worker.jobs) for worker, jobs in seen},
        trains=any(worker.role == "train" and worker.state != "lost" for worker in workers),
        poll_seconds=POLL_SECONDS,
    )
