"""Metering by real worker processes: killed, several on one host, and between jobs."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest
from sqlalchemy import func, select

from greencore.clock import utc_now
from greencore.energy.interval import JOULES_PER_KWH
from runtime.settings import Settings
from scheduler.reclaim import reclaim_lost_jobs
from store.accounting.energy_totals import idle_energy
from store.accounting.metering import begin_sharing
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.jobs import JobRepository
from store.tables import EnergyInterval, MeteredAttempt
from tests.scheduler.stage import backdate_lease, events, read_job, wait_until
from tests.worker.stage import claim_as_worker, event_types, queued_job
from worker.idle_meter import IdleMeter
from worker.registration import host_id
from worker.training.claim import train_job

CPU_W, RAM_W = 40.0, 10.0

# Forks a process for each job, a second after the one before, as workers fork theirs. Each holds its job under an open
# meter, as an attempt does while it trains, until it is asked to stop.
METERS = """
import os, sys, time
from store.database import Database
from runtime.settings import get_settings
from worker.training.attempt import TrainingAttempt
from worker.training.heartbeat import LeaseHeartbeat
from worker.training.leased_writer import LeasedWriter
from worker.training.claim import _claim

settings = get_settings()

def hold(job_id):
    database = Database(settings.database_url)
    lease = _claim(database, settings, job_id, None)
    with LeaseHeartbeat(database, lease, settings) as heartbeat:
        attempt = TrainingAttempt(LeasedWriter(database, lease, heartbeat, lease_seconds=60), settings)

        def train():
            print("meters", os.getpid(), flush=True)
            while not attempt.should_stop():
                time.sleep(0.05)

        attempt._train = train
        attempt.run()

for job_id in sys.argv[1:]:
    if os.fork() == 0:
        hold(job_id)
        os._exit(0)
    time.sleep(1)
for _ in sys.argv[1:]:
    os.wait()
"""


@pytest.fixture
def steady(worker_settings: Settings) -> Settings:
    """Settings of a host of known power."""
    return worker_settings.model_copy(
        update={"heartbeat_seconds": 0.1, "cpu_power_w": CPU_W, "ram_power_w": RAM_W, "energy_interval_seconds": 1.5}
    )


@contextmanager
def metering(settings: Settings, *job_ids: str) -> Iterator[list[int]]:
    """The processes that hold these jobs, by their ids, in the order in which they began to meter; all end with it."""
    with subprocess.Popen(
        [sys.executable, "-c", METERS, *job_ids], env=settings.environment(), stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        holders = list[int]()
        try:
            while len(holders) < len(job_ids):
                words = parent.stdout.readline().split()
                assert words
                if words[0] == "meters":
                    holders.append(int(words[1]))
            yield holders
            assert parent.wait(30) == 0
        finally:
            for holder in holders:
                with suppress(ProcessLookupError):
                    os.kill(holder, signal.SIGKILL)
            parent.kill()


def stored(database: Database, job_id: str) -> Sequence[EnergyInterval]:
    query = select(EnergyInterval).where(EnergyInterval.job_id == job_id).order_by(EnergyInterval.started_at)
    with database.session() as session:
        return session.scalars(query).all()


def joules(database: Database, *job_ids: str) -> float:
    query = select(func.sum(EnergyInterval.energy_kwh)).where(EnergyInterval.job_id.in_(job_ids))
    with database.session() as session:
        return float(session.scalar(query) or 0.0) * JOULES_PER_KWH


def attempt_of(database: Database, job_id: str) -> MeteredAttempt:
    with database.session() as session:
        return session.scalars(select(MeteredAttempt).where(MeteredAttempt.job_id == job_id)).one()


@pytest.mark.fault(number=14)
def test_a_killed_workers_energy_is_billed_up_to_its_last_heartbeat(database: Database, steady: Settings) -> None:
    job_id = queued_job(database, steady)
    with metering(steady, job_id) as [holder]:
        began = time.monotonic()
        time.sleep(2.2)
        os.kill(holder, signal.SIGKILL)
        ran = time.monotonic() - began
    backdate_lease(database, job_id)
    reclaim_lost_jobs(database, steady, at=utc_now())

    assert read_job(database, job_id).status is JobStatus.QUEUED
    rows = stored(database, job_id)
    assert [row.lost for row in rows] == [False] * (len(rows) - 1) + [True]
    assert rows[-1].method == dict.fromkeys(
        ("cpu", "ram"), "lost with its worker: estimate by the attempt's mean power"
    )
    assert joules(database, job_id) == pytest.approx((CPU_W + RAM_W) * ran, rel=0.3)
    assert "energy.lost" in event_types(database, job_id)


@pytest.mark.fault(number=14)
def test_a_silent_meter_leaves_an_event_and_an_estimate_and_the_job_runs_on(
    database: Database, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no meter")

    monkeypatch.setattr("codecarbon.OfflineEmissionsTracker.__init__", broken)
    job_id = queued_job(database, worker_settings, epochs=1)
    train_job(job_id, settings=worker_settings)
    assert read_job(database, job_id).status is JobStatus.SUCCEEDED
    rows = stored(database, job_id)
    assert {row.method["cpu"] for row in rows} == {"CodeCarbon does not answer: estimate by its design power"}
    assert joules(database, job_id) > 0
    (silent,) = [event for event in events(database, job_id) if event.type == "energy.meter_silent"]
    assert set(silent.data["methods"]) == {"cpu", "ram"}


@pytest.mark.fault(number=15)
def test_two_workers_on_one_host_bill_its_processor_and_memory_once(database: Database, steady: Settings) -> None:
    first, second = queued_job(database, steady), queued_job(database, steady)
    with metering(steady, first, second):
        time.sleep(1)
        stop(database, second)
        wait_until(lambda: read_job(database, second).status is not JobStatus.RUNNING)
        time.sleep(0.5)
        stop(database, first)
    outer, inner = attempt_of(database, first), attempt_of(database, second)
    assert outer.host == inner.host == host_id()
    assert seconds_of(outer) > seconds_of(inner) + 1
    assert joules(database, first, second) == pytest.approx((CPU_W + RAM_W) * seconds_of(outer), rel=0.05)
    assert joules(database, second) == pytest.approx((CPU_W + RAM_W) / 2 * seconds_of(inner), rel=0.1)
    assert "energy.differs" not in event_types(database, first) + event_types(database, second)


def seconds_of(attempt: MeteredAttempt) -> float:
    assert attempt.host_from is not None
    assert attempt.host_until is not None
    return attempt.host_until - attempt.host_from


def stop(database: Database, job_id: str) -> None:
    """Ask a job's worker to hand it back."""
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        job.control = "pause"


@pytest.mark.fault(number=15)
def test_idle_energy_between_jobs_is_metered_separately(database: Database, steady: Settings) -> None:
    threads = threading.active_count()
    meter = IdleMeter(database, steady, host=host_id())
    meter.sample()
    began = time.monotonic()
    time.sleep(1)
    meter.sample()
    lease = claim_as_worker(database, queued_job(database, steady))
    with database.session() as session:
        begin_sharing(session, lease, host=host_id(), gpus=(), monotonic=time.monotonic)
    busy = time.monotonic()
    time.sleep(1)
    meter.sample()
    with database.session() as session:
        idle = {row.component: row.kwh * JOULES_PER_KWH for row in idle_energy(session)}
        assert {row.zone for row in idle_energy(session)} == {steady.training_site.zone}
    assert idle["cpu"] == pytest.approx(CPU_W * (busy - began), rel=0.1)
    assert idle["ram"] == pytest.approx(RAM_W * (busy - began), rel=0.1)
    # None of a call's time limit stays, and none that CodeCarbon samples in: jobs are forked from such a process.
    assert threading.active_count() == threads
