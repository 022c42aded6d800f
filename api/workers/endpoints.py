"""`/workers`: the service's processes and their state."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy.orm import Session

from api.access.principal import Principal, PrincipalDep
from api.dependencies import AppContext, AppContextDep, NowDep, SessionDep
from api.http.pagination import Listing, complete_listing
from api.row_model import RowModel
from store.accounting.energy_totals import idle_energy_by_zone
from store.repositories.workers import Role, WorkerRepository
from store.tables import Job, Worker

LOST_WORKER_SHOWN_FOR = timedelta(hours=1)

router = APIRouter(prefix="/workers", tags=["workers"])


class WorkerOut(RowModel):
    """One process. `jobs` are those that it holds, each visible only to those who may read it."""

    id: str
    role: Role
    zone: str | None = Field(
        description='Zone of a training worker\'s site, "site-unknown" if that is not set; null for any other process'
    )
    pue: float | None = Field(description="kWh drawn by the site for each kWh that a training worker uses")
    site_idle_kwh: float | None = Field(
        description="Energy used so far by the hosts of the zone's training workers without a job, before PUE; part of "
        "no job's energy; null for any other process"
    )
    zones: list[str] = Field(description="`zone` as a list", deprecated=True)
    device: str
    memory_bytes: int | None = Field(
        description="Memory of a training worker's device: a GPU's, or the host's within its container's limit"
    )
    computes_bf16: bool | None = Field(
        description="Whether a training worker's device computes natively in bfloat16, by which `precision` = `auto` "
        "chooses"
    )
    gpus: int | None = Field(
        description="Devices that a training worker gives to jobs: its GPUs, or processes where it has none"
    )
    gpus_free: int | None = Field(description="Those of them that no job holds")
    state: Literal["idle", "busy", "running", "lost"] = Field(
        description="A training worker is idle or busy, any other process running; lost: no heartbeat for too long"
    )
    jobs: list[str] = Field(description="Jobs that it holds, without those of others")
    job: str | None = Field(description="The first of `jobs`", deprecated=True)
    started_at: datetime
    last_seen_at: datetime

    @classmethod
    def of(
        cls,
        worker: Worker,
        jobs: Sequence[Job],
        *,
        principal: Principal,
        alive_since: datetime,
        idle_kwh: Mapping[str, float],
    ) -> "WorkerOut":
        """Build from a worker as visible to `principal`; `idle_kwh` is the idle energy of each zone."""
        state = "running" if worker.role != "train" else "busy" if jobs else "idle"
        trains, held = worker.role == "train", sum(job.gpus for job in jobs)
        visible = [job.id for job in jobs if principal.can_read(job.owner)]
        return cls.from_row(
            worker,
            gpus=worker.gpus if trains else None,
            gpus_free=max(0, worker.gpus - held) if trains else None,
            site_idle_kwh=None if worker.zone is None else idle_kwh.get(worker.zone, 0.0),
            zones=[] if worker.zone is None else [worker.zone],
            state="lost" if worker.last_seen_at < alive_since else state,
            jobs=visible,
            job=next(iter(visible), None),
        )


def load_workers(
    principal: Principal, context: AppContext, session: Session, now: datetime
) -> list[tuple[WorkerOut, list[Job]]]:
    """Return the workers that are alive or were lost within the last hour, each with the jobs that it holds."""
    alive_since = now - timedelta(seconds=context.settings.lease_seconds)
    idle_kwh = idle_energy_by_zone(session)
    return [
        (WorkerOut.of(worker, jobs, principal=principal, alive_since=alive_since, idle_kwh=idle_kwh), jobs)
        for worker, jobs in WorkerRepository(session).list_with_jobs(since=alive_since - LOST_WORKER_SHOWN_FOR)
    ]


@router.get("", summary="List workers and their state")
def list_workers(
    principal: PrincipalDep, context: AppContextDep, session: SessionDep, now: NowDep
) -> Listing[WorkerOut]:
    """Those that are alive, and those that were lost within the last hour, but not those that were stopped."""
    return complete_listing([worker for worker, _ in load_workers(principal, context, session, now)])
