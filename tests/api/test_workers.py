"""`/workers`: live processes with their jobs, and lost ones."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from runtime.settings import Settings
from runtime.site import Site
from store.accounting.energy_totals import add_to_idle_energy
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.workers import WorkerRepository
from store.tables import Job


def test_each_process_is_listed_with_its_state_and_the_job_that_it_holds(
    client: TestClient, job_id: str, database: Database, settings: Settings, now: datetime
) -> None:
    silent = timedelta(seconds=settings.lease_seconds + 1)
    with database.session() as session:
        workers, before = WorkerRepository(session), now - timedelta(seconds=5)
        workers.record_heartbeat("worker_a", site=Site(zone="FR", pue=1.2), device="NVIDIA H100", at=before)
        workers.record_heartbeat("worker_b", site=Site(zone="FR"), at=now)
        workers.record_heartbeat("worker_c", site=Site(zone="FR"), at=now - silent)
        workers.record_heartbeat("worker_d", site=Site(zone="FR"), at=now - silent - timedelta(hours=1))
        workers.record_heartbeat("worker_e", role="scheduler", at=now)
        workers.record_heartbeat("worker_f", role="prepare", at=now)
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


@pytest.mark.fault(number=15)
def test_idle_energy_is_reported_by_zone_and_counted_apart_from_that_of_jobs(
    client: TestClient, database: Database, now: datetime
) -> None:
    with database.session() as session:
        workers = WorkerRepository(session)
        workers.record_heartbeat("worker_a", site=Site(zone="FR"), at=now)
        workers.record_heartbeat("worker_b", site=Site(zone="GB"), at=now)
        workers.record_heartbeat("worker_c", role="prepare", at=now)
        add_to_idle_energy(session, "FR", {"cpu": 0.5, "gpu": 0.25})
        add_to_idle_energy(session, "FR", {"cpu": 0.5, "ram": 0.25})

    listed: list[dict[str, Any]] = client.get("/workers").json()["data"]
    assert [worker["site_idle_kwh"] for worker in listed] == [1.5, 0, None]
    metrics = client.get("/metrics").text
    assert 'greentune_idle_energy_kwh_total{component="cpu",zone="FR"} 1.0' in metrics
    assert 'greentune_energy_kwh_total{component="cpu",zone="FR"}' not in metrics
    assert "1.5 kWh used by no job" in client.get("/dashboard/workers").text


def test_the_page_shows_the_memory_of_a_workers_device(client: TestClient, database: Database, now: datetime) -> None:
    with database.session() as session:
        WorkerRepository(session).record_heartbeat("gpu", site=Site(zone="FR"), memory_bytes=139 * 10**9, at=now)
    assert "139 GB of memory" in client.get("/dashboard/workers").text


def test_a_worker_with_several_gpus_shows_all_its_jobs_and_how_many_are_free(
    client: TestClient, submit: Any, database: Database, now: datetime
) -> None:
    jobs = sorted(submit(resources={"gpus": gpus}).json()["id"] for gpus in (1, 2))
    with database.session() as session:
        workers = WorkerRepository(session)
        workers.record_heartbeat("worker_a", site=Site(zone="FR"), device="NVIDIA H100", gpus=4, at=now)
        workers.record_heartbeat("worker_b", role="prepare", at=now)
        for job_id in jobs:
            job = session.get_one(Job, job_id)
            job.status, job.worker_id, job.zone = JobStatus.RUNNING, "worker_a", "FR"
    trains, prepares = client.get("/workers").json()["data"]
    assert (trains["gpus"], trains["gpus_free"], trains["jobs"], trains["job"]) == (4, 1, jobs, jobs[0])
    assert (prepares["gpus"], prepares["gpus_free"], prepares["jobs"]) == (None, None, [])
    page = client.get("/dashboard/workers").text
    assert all(f"/dashboard/jobs/{job_id}" in page for job_id in jobs)
    assert "3 busy" in page
    assert "on 2 GPUs" in page
    assert 'greentune_gpus_busy{zone="FR"} 3.0' in client.get("/metrics").text
