"""`/workers`: who works, at what, and who was lost."""

from datetime import datetime, timedelta
from typing import Any

from fastapi.testclient import TestClient

from store.database import Database
from store.settings import Settings
from store.site import Site
from store.status import JobStatus
from store.tables import Job
from store.workers import WorkerRepository


def test_each_process_is_listed_with_its_state_and_the_job_that_it_holds(
    client: TestClient, job_id: str, database: Database, settings: Settings, now: datetime
) -> None:
    silent = timedelta(seconds=settings.lease_seconds + 1)
    with database.session() as session:
        workers, before = WorkerRepository(session), now - timedelta(seconds=5)
        workers.seen("worker_a", site=Site(zone="FR", pue=1.2), device="NVIDIA H100", at=before)
        workers.seen("worker_b", site=Site(zone="FR"), at=now)
        workers.seen("worker_c", site=Site(zone="FR"), at=now - silent)
        workers.seen("worker_d", site=Site(zone="FR"), at=now - silent - timedelta(hours=1))
        workers.seen("worker_e", role="scheduler", at=now)
        workers.seen("worker_f", role="prepare", at=now)
        job = session.get_one(Job, job_id)
        job.status, job.worker_id = JobStatus.RUNNING, "worker_a"

    listed: list[dict[str, Any]] = client.get("/workers").json()["data"]

    assert [(worker["id"][-1], worker["role"], worker["state"], worker["job"]) for worker in listed] == [
        ("a", "train", "busy", job_id),
        ("b", "train", "idle", None),
        ("c", "train", "lost", None),
        ("e", "scheduler", "running", None),
        ("f", "prepare", "running", None),
    ]
    first = {name: listed[0][name] for name in ("zone", "pue", "zones", "device")}
    assert first == {"zone": "FR", "pue": 1.2, "zones": ["FR"], "device": "NVIDIA H100"}
    assert [(worker["zone"], worker["pue"], worker["zones"]) for worker in listed[-2:]] == [(None, None, [])] * 2
    assert listed[0]["last_seen_at"] == "2026-11-23T11:59:55Z"
