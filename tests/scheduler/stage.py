"""Jobs, workers and traces for scheduler tests."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import func

from greencore.clock import HOUR
from runtime.ids import new_id
from runtime.site import Site
from store.database import Database
from store.lifecycle.leases import Lease, claim
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository, NewJob
from store.repositories.workers import WorkerRepository
from store.tables import Dataset, Event, Job

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
# Assumed throughput of the CPU, so that a job of `hours` takes that long.
FLOPS_PER_HOUR = 0.05e12 * 3600


def add_job(
    database: Database,
    status: JobStatus = JobStatus.QUEUED,
    zone: str | None = None,
    *,
    model: str = "m",
    method: str = "greentrainer",
    policy: dict[str, Any] | None = None,
    hyperparameters: Mapping[str, Any] = MappingProxyType({}),
    dataset: Mapping[str, Any] = MappingProxyType({}),
    owner: str | None = "alice",
    hours: float | None = None,
    epochs: int = 1,
    at: datetime = START,
    **columns: Any,
) -> str:
    """Add a job with this status; `hours` is its estimated duration on the CPU at ρ = 1.

    `dataset` are columns of its dataset, and `columns` of the job itself.
    """
    dataset_id = add_dataset(database, dataset)
    with database.session() as session:
        new = NewJob(
            owner=owner,
            model=model,
            dataset_id=dataset_id,
            method=method,
            policy_name=None,
            policy=policy or {"kind": "constant", "rho": 0.6},
            zone=zone,
            deadline=columns.pop("deadline", None),
            priority=0,
            hyperparameters=hyperparameters,
            labels={},
            epochs=epochs,
        )
        job = JobRepository(session).add(new, at=at)
        if hours is not None:
            job.estimate = {"full_flops": hours * FLOPS_PER_HOUR}
        if status is not JobStatus.VALIDATING:
            transition(session, job, JobStatus.QUEUED, at=at)
        for column, value in columns.items():
            setattr(job, column, value)
        return job.id


def add_dataset(database: Database, columns: Mapping[str, Any]) -> str:
    """Add a dataset with these columns, and return its id."""
    defaults = {"name": "rows", "format": "jsonl", "rows": 1, "bytes": 1, "sha256": "0", "blob": "0"}
    row = Dataset(id=new_id("ds"), created_at=START, **{**defaults, **columns})
    with database.session() as session:
        session.add(row)
        session.flush()
        return row.id


def read_job(database: Database, job_id: str) -> Job:
    with database.session() as session:
        job = JobRepository(session).get(job_id)
    assert job is not None
    return job


def events(database: Database, job_id: str) -> list[Event]:
    """Return a job's events, oldest first."""
    with database.session() as session:
        return list(reversed(JobRepository(session).events(job_id, limit=100).data))


def add_worker(database: Database, zone: str, *, name: str = "worker_1", pue: float = 1.0, **device: Any) -> None:
    """Add a live training worker to a zone; its heartbeat is by the database's clock, which tests do not set."""
    with database.session() as session:
        WorkerRepository(session).record_heartbeat(name, site=Site(zone=zone, pue=pue), **{"device": "cpu", **device})


def backdate_lease(database: Database, job_id: str) -> None:
    """Expire the lease of a job's worker."""
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        job.lease_expires_at = func.now() - timedelta(seconds=1)


def claim_as_worker(database: Database, job_id: str, *, at: datetime, worker: str = "worker_1") -> Lease:
    """Claim a job for a month."""
    with database.session() as session:
        lease = claim(session, job_id, worker_id=worker, device="cpu", at=at, lease_seconds=30 * 86_400)
    assert lease is not None
    return lease


def wait_until(ready: Callable[[], bool], seconds: float = 30.0) -> float:
    """Wait until `ready` is true, and return the seconds that it took."""
    began = time.monotonic()
    while not ready():
        assert time.monotonic() < began + seconds, f"waited {seconds:g} s in vain"
        time.sleep(0.01)
    return time.monotonic() - began


def write_trace(folder: Path, values: Sequence[float], *, start: datetime = START, name: str = "grid") -> str:
    """Write a trace with one value an hour, and return its source specification."""
    lines = [f"{(start + hour * HOUR).isoformat()},{value}" for hour, value in enumerate(values)]
    file = folder / f"{name}.csv"
    file.write_text("datetime,gco2e_per_kwh\n" + "\n".join(lines) + "\n")
    return f"trace:{file}"
