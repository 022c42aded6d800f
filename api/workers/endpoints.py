"""`/workers`: the service's processes and their state."""

from datetime import timedelta

from fastapi import APIRouter

from api.access.principal import PrincipalDep
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.pagination import Listing, complete_listing
from api.workers.schemas import WorkerOut
from store.accounting.energy_totals import idle_energy_by_zone
from store.repositories.workers import WorkerRepository

LOST_WORKER_SHOWN_FOR = timedelta(hours=1)

router = APIRouter(prefix="/workers", tags=["workers"])


@router.get("", summary="List workers and their state")
def list_workers(
    principal: PrincipalDep, context: AppContextDep, session: SessionDep, now: NowDep
) -> Listing[WorkerOut]:
    """Those that are alive, and those that were lost within the last hour, but not those that were stopped."""
    alive_since = now - timedelta(seconds=context.settings.lease_seconds)
    idle_kwh = idle_energy_by_zone(session)
    seen = WorkerRepository(session).list_with_jobs(since=alive_since - LOST_WORKER_SHOWN_FOR)
    return complete_listing(
        [
            WorkerOut.of(worker, job, principal=principal, alive_since=alive_since, idle_kwh=idle_kwh)
            for worker, job in seen
        ]
    )
