"""Jobs that a worker can train, and readers of their rows."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select

from greencore.carbon import Reading
from greencore.clock import HOUR, utc_now
from runtime.settings import Settings
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle.leases import Lease, claim
from store.lifecycle.status import JobStatus
from store.lifecycle.transitions import transition
from store.repositories.jobs import JobRepository
from store.tables import Artifact, Checkpoint, Step
from tests.scheduler.stage import add_job, events

ROWS = "\n".join(json.dumps({"prompt": f"w{n % 60} w1 w2 " * 4, "completion": " w7 w8 w9"}) for n in range(40))
HYPERPARAMETERS = {"epochs": 3, "batch_size": 4, "eval_share": 0.1, "max_new_tokens": 2, "learning_rate": 1e-3}
STEPS = 27  # 9 of an epoch's 36 rows


def queued_job(database: Database, settings: Settings, **hyperparameters: object) -> str:
    """Add a queued job on the small model for zone X."""
    settings.datasets_dir.mkdir(parents=True, exist_ok=True)
    settings.dataset_file("rows").write_text(ROWS)
    now = utc_now()
    reading = Reading(zone="X", start=now - HOUR, end=now + HOUR, gco2e_per_kwh=100.0, source="test", fetched_at=now)
    with database.session() as session:
        GridRepository(session).put([reading])
    return add_job(
        database,
        zone="X",
        model="small",
        hyperparameters=HYPERPARAMETERS | hyperparameters,
        dataset={"rows": 40, "blob": "rows"},
        epochs=3,
        at=now,
        signal="average",
    )


def claim_as_worker(database: Database, job_id: str, *, lease_seconds: float = 60.0) -> Lease:
    """Claim a queued job."""
    with database.session() as session:
        lease = claim(session, job_id, worker_id="w", device="cpu", at=utc_now(), lease_seconds=lease_seconds)
    assert lease is not None
    return lease


def requeue_as_scheduler(database: Database, job_id: str) -> None:
    """Return a job to the queue, as the scheduler does when its worker fell silent."""
    set_status(database, job_id, JobStatus.QUEUED)


def set_status(database: Database, job_id: str, to: JobStatus, *, control: str | None = None) -> None:
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        transition(session, job, to, at=utc_now())
        if control is not None:
            job.control = control


def event_types(database: Database, job_id: str) -> list[str]:
    return [event.type for event in events(database, job_id)]


def steps(database: Database, job_id: str) -> list[int]:
    with database.session() as session:
        return list(session.scalars(select(Step.number).where(Step.job_id == job_id).order_by(Step.number)))


def checkpoint_names(database: Database, job_id: str) -> set[str]:
    with database.session() as session:
        return set(session.scalars(select(Checkpoint.name).where(Checkpoint.job_id == job_id)))


def weights(database: Database, job_id: str) -> str:
    with database.session() as session:
        return session.get_one(Artifact, (job_id, "model.safetensors")).sha256


@contextmanager
def act_when(ready: Callable[[], bool], act: Callable[[], object]) -> Iterator[None]:
    """Call `act` once `ready` is true while the block runs.

    A SIGTERM that arrives after the block has removed its handler does not end the tests.
    """
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: None)

    def watch() -> None:
        while not ended.wait(0.01):
            if ready():
                act()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def list_file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
