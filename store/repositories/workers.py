"""Live processes: training workers with their sites, prepare workers and schedulers."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Literal

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from runtime.site import UNKNOWN_SITE, Site
from store.database import Repository
from store.lifecycle.status import HELD_BY_A_WORKER
from store.tables import Job, Worker

Role = Literal["train", "prepare", "scheduler"]


class WorkerRepository(Repository):
    """Queries on workers."""

    def record_heartbeat(
        self,
        worker_id: str,
        *,
        at: datetime | None = None,
        role: Role = "train",
        site: Site = UNKNOWN_SITE,
        device: str = "cpu",
        memory_bytes: int | None = None,
        computes_bf16: bool | None = None,
        gpus: int = 1,
    ) -> None:
        """Record that a process is alive now, by the database's clock, which all share, or at `at`.

        `site` and what is known of the device's memory and arithmetic are stored for a training worker alone, which
        gives `gpus` devices to jobs.
        """
        now = func.now() if at is None else at
        trains = role == "train"
        seen = {
            "zone": site.zone if trains else None,
            "pue": site.pue if trains else None,
            "device": device,
            "memory_bytes": memory_bytes if trains else None,
            "computes_bf16": computes_bf16 if trains else None,
            "gpus": gpus,
            "last_seen_at": now,
        }
        statement = insert(Worker).values(id=worker_id, role=role, started_at=now, **seen)
        self._session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=seen))

    def remove(self, worker_id: str) -> None:
        """Delete the row of a worker that has stopped."""
        self._session.execute(delete(Worker).where(Worker.id == worker_id))

    def list_with_jobs(self, *, since: datetime) -> Sequence[tuple[Worker, list[Job]]]:
        """Return processes of every role seen since a time, each with the jobs that it holds, both by id."""
        query = (
            select(Worker, Job)
            .outerjoin(Job, (Job.worker_id == Worker.id) & Job.status.in_(HELD_BY_A_WORKER))
            .where(Worker.last_seen_at >= since)
            .order_by(Worker.id, Job.id)
        )
        by_worker = groupby(self._session.execute(query), key=lambda row: row[0])
        return [(worker, [job for _, job in rows if job is not None]) for worker, rows in by_worker]

    def count_free_gpus(self, worker_id: str) -> int:
        """Return how many of a worker's devices no job holds, with the worker's row locked; 0 where there is none."""
        worker = self._session.get(Worker, worker_id, with_for_update=True, populate_existing=True)
        held = select(func.coalesce(func.sum(Job.gpus), 0)).where(
            Job.worker_id == worker_id, Job.status.in_(HELD_BY_A_WORKER)
        )
        return 0 if worker is None else worker.gpus - (self._session.scalar(held) or 0)

    def list_live(self, *, within: timedelta, role: Role = "train") -> Sequence[Worker]:
        """Return the processes of a role seen within a duration by the database's clock."""
        seen = Worker.last_seen_at.between(func.now() - within, func.now() + within)
        return self._session.scalars(select(Worker).where(Worker.role == role, seen).order_by(Worker.id)).all()

    def delete_silent(self, *, silent_for: timedelta) -> None:
        """Delete the processes of every role that were not seen for `silent_for`."""
        self._session.execute(delete(Worker).where(Worker.last_seen_at < func.now() - silent_for))

    def list_seen_since(self, *, since: datetime) -> Sequence[Worker]:
        """Return the training workers seen since a time."""
        query = select(Worker).where(Worker.role == "train", Worker.last_seen_at >= since).order_by(Worker.id)
        return self._session.scalars(query).all()
