"""A worker leaves a job that its device does not hold to another of its zone that does."""

import json
from pathlib import Path

import pytest

from greencore.training.models.precision import PRECISION_FILE_NAME
from greencore.training.run_memory import FILE_NAME as RECOMPUTATION_FILE_NAME
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from store.tables import Job
from tests.scheduler.stage import add_worker, read_job
from tests.worker.stage import queued_job
from worker.training.claim import train_job


@pytest.mark.parametrize(("worker", "status"), [("small", JobStatus.QUEUED), ("large", JobStatus.SUCCEEDED)])
def test_a_job_is_claimed_by_a_worker_whose_device_holds_it(
    worker: str,
    status: JobStatus,
    database: Database,
    worker_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("GREENTUNE_WORKER_ID", worker)
    for name, size in (("small", 10**6), ("large", 10**12)):
        add_worker(database, "X", name=name, memory_bytes=size, computes_bf16=False)
    job_id = queued_job(database, worker_settings, epochs=1)
    with database.session() as session:
        job = session.get_one(Job, job_id)
        job.zone, job.epochs = "X", 1
        job.dispatched_at = job.created_at
        job.estimate = {"full_flops": 1e9, "memory_needs": {"fp32": {"kept": 10**9, "recomputed": 10**9}}}
    train_job(job_id, settings=worker_settings)
    job = read_job(database, job_id)
    assert job.status is status, job.error
    assert job.dispatched_at is not None  # what is not claimed counts as lost after a while, and is sent again
    stored = worker_settings.job_dir(job_id) / PRECISION_FILE_NAME
    assert job.precision == (json.loads(stored.read_text()) if status is JobStatus.SUCCEEDED else None)


def test_a_run_predicts_its_steps_up_to_the_highest_rho_of_its_policy(
    database: Database, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greencore.training.run_memory.read_host_memory", lambda: 1)

    def predict_peak(rho: float) -> int:
        job_id = queued_job(database, worker_settings, epochs=1)
        with database.session() as session:
            job = session.get_one(Job, job_id)
            job.epochs, job.policy = 1, {"kind": "constant", "rho": rho}
        train_job(job_id, settings=worker_settings)
        stored = json.loads((worker_settings.job_dir(job_id) / RECOMPUTATION_FILE_NAME).read_text())
        return int(stored["peak_bytes"])

    assert predict_peak(0.6) < predict_peak(1.0)
