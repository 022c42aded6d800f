"""An attempt's writes wait for an unreachable database, for at most its lease."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from greencore.clock import utc_now
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.leases import Lease, LeaseLost
from store.repositories.jobs import JobRepository
from tests.worker.stage import claim_as_worker, event_types, queued_job, steps
from worker.database_retry import TRANSIENT_DATABASE_ERRORS
from worker.training import leased_writer as writer_module
from worker.training.heartbeat import LeaseHeartbeat
from worker.training.leased_writer import LeasedWriter
from worker.training.step_log import StepLog


@contextmanager
def away(database: Database, postgres_url: str) -> Iterator[Callable[[], None]]:
    """A database that breaks off every connection and takes no new one, until the block ends or `back()` is called."""
    name = database.url.database
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)

    def run(*statements: str) -> None:
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def back() -> None:
        run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    run(
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    try:
        yield back
    finally:
        back()
        engine.dispose()


@pytest.fixture
def lease(database: Database, settings: Settings) -> Lease:
    return claim_as_worker(database, queued_job(database, settings))


def writer_of(database: Database, settings: Settings, lease: Lease, *, lease_seconds: float) -> LeasedWriter:
    return LeasedWriter(database, lease, LeaseHeartbeat(database, lease, settings), lease_seconds=lease_seconds)


def record(lease: Lease) -> Callable[[Session], None]:
    return lambda session: JobRepository(session).record(lease.job_id, "recorded", at=utc_now())


def test_a_write_waits_until_the_database_is_back(
    database: Database, settings: Settings, lease: Lease, postgres_url: str
) -> None:
    writer = writer_of(database, settings, lease, lease_seconds=30)
    with away(database, postgres_url) as back:
        timer = Timer(0.5, back)
        timer.start()
        writer.run_in_transaction(record(lease))
        timer.join()
    assert event_types(database, lease.job_id).count("recorded") == 1


def test_a_write_raises_once_the_lease_may_be_lost(
    database: Database, settings: Settings, lease: Lease, postgres_url: str
) -> None:
    writer = writer_of(database, settings, lease, lease_seconds=0.3)
    with away(database, postgres_url), pytest.raises(TRANSIENT_DATABASE_ERRORS):
        writer.run_in_transaction(record(lease))
    writer.heartbeat.lost = True
    with pytest.raises(LeaseLost):
        writer.run_in_transaction(record(lease))
    assert "recorded" not in event_types(database, lease.job_id)


def test_a_draining_worker_waits_only_briefly(
    database: Database, settings: Settings, lease: Lease, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "DRAIN_TIMEOUT_SECONDS", 0.2)
    writer = writer_of(database, settings, lease, lease_seconds=600)
    writer.heartbeat.drain()
    with away(database, postgres_url), pytest.raises(TRANSIENT_DATABASE_ERRORS):
        writer.run_in_transaction(record(lease))


def test_steps_are_buffered_while_the_database_is_unreachable(
    database: Database, settings: Settings, lease: Lease, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.training.step_log.REPORT_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr("worker.training.step_log.RETRY_SECONDS", 0.0)
    log = StepLog(writer_of(database, settings, lease, lease_seconds=30))
    log.add(done=1, steps=9, loss=2.0)
    with away(database, postgres_url):
        began = time.monotonic()
        for number in (2, 3):
            log.add(done=number, steps=9, loss=2.0)
        log.add(done=4, steps=9, loss=float("nan"))
        assert time.monotonic() - began < 5
    log.add(done=5, steps=9, loss=1.0)
    log.flush()
    assert steps(database, lease.job_id) == [1, 2, 3, 5]


def test_the_heartbeat_survives_an_outage_shorter_than_the_lease(
    database: Database, settings: Settings, lease: Lease, postgres_url: str
) -> None:
    quick = settings.model_copy(update={"heartbeat_seconds": 0.05})
    with LeaseHeartbeat(database, lease, quick) as heartbeat:
        with away(database, postgres_url):
            threading.Event().wait(0.4)
        assert not heartbeat.lost
        with database.session() as session:
            job = JobRepository(session).lock(lease.job_id)
            assert job is not None
            job.control = "pause"
        deadline = time.monotonic() + 10
        while heartbeat.control != "pause":
            assert time.monotonic() < deadline
            time.sleep(0.02)
