"""Processes that do not stop are killed, and their job says so; with real processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from tests.scheduler.stage import events, read_job, wait_until
from tests.worker.stage import queued_job, requeue_as_scheduler, set_status

# Holds a job and computes forever, with a child process.
STUCK = """
import subprocess, sys, time
from worker.training import heartbeat
from store.database import Database
from store.lifecycle.leases import claim
from runtime.settings import get_settings
from greencore.clock import utc_now

heartbeat.LOST_GRACE_SECONDS = 0.3
settings = get_settings()
database = Database(settings.database_url)
with database.session() as session:
    lease = claim(session, sys.argv[1], worker_id="w", device="cpu", at=utc_now(), lease_seconds=settings.lease_seconds)
subprocess.Popen(["sleep", "600"])
with heartbeat.LeaseHeartbeat(database, lease, settings):
    print("holds it", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"heartbeat_seconds": 0.1, "cancel_grace_seconds": 0.5})


@contextmanager
def stuck(settings: Settings, job_id: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, job_id], env=settings.environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "holds it\n"
            yield process
        finally:
            for left in [*psutil.Process(process.pid).children(), process] if process.poll() is None else []:
                left.kill()


def test_a_job_that_ignores_a_cancel_is_killed(database: Database, settings: Settings) -> None:
    job_id = queued_job(database, settings)
    with stuck(settings, job_id) as process:
        [below] = psutil.Process(process.pid).children()
        asked = time.monotonic()
        set_status(database, job_id, JobStatus.CANCELLING, control="cancel")
        assert process.wait(20) == 1
        assert time.monotonic() - asked >= 0.5
        wait_until(lambda: not below.is_running() or below.status() == psutil.STATUS_ZOMBIE)
    assert read_job(database, job_id).status is JobStatus.CANCELLED
    assert events(database, job_id)[-1].data["reason"] == "did not stop within 0.5 s, and was terminated"


def test_a_process_that_lost_its_lease_is_killed_and_changes_nothing(database: Database, settings: Settings) -> None:
    job_id = queued_job(database, settings)
    with stuck(settings, job_id) as process:
        requeue_as_scheduler(database, job_id)
        assert process.wait(20) == 1
    assert read_job(database, job_id).status is JobStatus.QUEUED


def test_a_process_without_its_database_for_a_lease_is_killed(
    database: Database, settings: Settings, postgres_url: str
) -> None:
    from tests.worker.training.test_leased_writer import away

    job_id = queued_job(database, settings)
    with stuck(settings.model_copy(update={"lease_seconds": 1.0}), job_id) as process, away(database, postgres_url):
        assert process.wait(20) == 1
    assert read_job(database, job_id).status is JobStatus.RUNNING  # the scheduler takes it back
