"""A worker claims jobs up to its devices, and leaves others to workers that have as many free."""

import pytest

from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from store.tables import Job
from tests.scheduler.stage import START, add_worker, claim_as_worker, read_job
from tests.worker.stage import queued_job, set_status
from worker.training.claim import train_job


def queue_job(database: Database, settings: Settings, *, gpus: int = 1) -> str:
    job_id = queued_job(database, settings, epochs=1)
    with database.session() as session:
        job = session.get_one(Job, job_id)
        job.gpus, job.zone, job.epochs = gpus, "X", 1
    return job_id


@pytest.mark.parametrize(
    ("held", "wanted", "status"),
    [
        ((1,), 1, JobStatus.SUCCEEDED),
        ((1, 1), 1, JobStatus.QUEUED),
        ((2,), 1, JobStatus.QUEUED),
        ((1,), 2, JobStatus.QUEUED),
        ((), 3, JobStatus.QUEUED),
    ],
)
def test_a_job_is_claimed_where_as_many_devices_are_free_as_it_wants(
    held: tuple[int, ...],
    wanted: int,
    status: JobStatus,
    database: Database,
    worker_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GREENTUNE_WORKER_ID", "two")
    for name, gpus in (("two", 2), ("four", 4)):
        add_worker(database, "X", name=name, gpus=gpus)
    for gpus in held:
        claim_as_worker(database, queue_job(database, worker_settings, gpus=gpus), at=START, worker="two")
    job_id = queue_job(database, worker_settings, gpus=wanted)
    train_job(job_id, settings=worker_settings)
    job = read_job(database, job_id)
    assert job.status is status, job.error
    assert job.attempts == (1 if status is JobStatus.SUCCEEDED else 0)


def test_a_job_holds_its_devices_until_it_has_stopped(
    database: Database, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENTUNE_WORKER_ID", "one")
    add_worker(database, "X", name="one")
    first, second = (queue_job(database, worker_settings) for _ in range(2))
    claim_as_worker(database, first, at=START, worker="one")
    set_status(database, first, JobStatus.PAUSING)
    train_job(second, settings=worker_settings)
    assert read_job(database, second).status is JobStatus.QUEUED
    set_status(database, first, JobStatus.PAUSED)
    train_job(second, settings=worker_settings)
    assert read_job(database, second).status is JobStatus.SUCCEEDED
