"""Leader election among schedulers, and the takeover from one that was killed, cut off or stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
from sqlalchemy import text

from scheduler.leadership import LEADER_LOCK_ID, Leadership
from store.database import Database
from tests.scheduler.stage import wait_until

# Without our own code, which takes seconds to load: a connection that holds the lock and sends no queries.
LEADER = f"""
import sys, time, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    connection.execute("SELECT pg_advisory_lock({LEADER_LOCK_ID})")
    print("leads", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def pair(database: Database) -> Iterator[tuple[Leadership, Leadership]]:
    with ExitStack() as stack:
        both = [Leadership(database.url, stale_after_seconds=0.5) for _ in range(2)]
        for leadership in both:
            stack.callback(leadership.resign)
        yield both[0], both[1]


@pytest.fixture
def leading_process(database: Database) -> Iterator[subprocess.Popen[str]]:
    url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with subprocess.Popen([sys.executable, "-c", LEADER, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "leads\n"
        yield process
        process.kill()


def test_one_scheduler_leads_and_the_next_takes_over(pair: tuple[Leadership, Leadership]) -> None:
    first, second = pair
    assert first.try_acquire()
    assert first.try_acquire()
    assert not second.try_acquire()
    first.resign()
    assert second.try_acquire()


def test_a_leader_that_loses_its_connection_is_replaced_and_stops_leading(
    database: Database, pair: tuple[Leadership, Leadership]
) -> None:
    first, second = pair
    assert first.try_acquire()
    assert not second.try_acquire()
    with database.session() as session:
        cut = text(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        )
        session.execute(cut)
    wait_until(second.try_acquire, 2)
    with pytest.raises(psycopg.OperationalError):
        first.try_acquire()
    assert not first.try_acquire()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_leader_that_is_killed_or_stopped_is_replaced(
    leading_process: subprocess.Popen[str], pair: tuple[Leadership, Leadership], how: signal.Signals
) -> None:
    assert not pair[0].try_acquire()
    os.kill(leading_process.pid, how)
    wait_until(pair[0].try_acquire, 5)


def test_a_leader_that_ticks_is_not_deposed(pair: tuple[Leadership, Leadership]) -> None:
    first, second = pair
    assert first.try_acquire()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        assert not second.try_acquire()
        assert first.try_acquire()
        time.sleep(0.05)
