"""The embedded servers keep their data, and are accessible to their owner only."""

import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from cli.errors import ProcessFailed
from cli.stack.embedded import EmbeddedPostgres, EmbeddedValkey, find_redis_problem
from cli.stack.processes import ManagedProcess, ProcessSpec, Watchdog
from scheduler.leadership import Leadership
from store.database import Database


@contextmanager
def running(service: ProcessSpec, folder: Path) -> Iterator[ManagedProcess]:
    with Watchdog() as watchdog:
        process = ManagedProcess(service, folder / f"{service.name}.log", watchdog)
        process.start()
        try:
            deadline = time.monotonic() + 30
            while not service.ready():
                if not process.alive or time.monotonic() > deadline:
                    raise process.describe_failure("is not ready")
                time.sleep(0.02)
            yield process
        finally:
            process.request_stop()
            process.wait_for_exit(threading.Event())


@contextmanager
def postgres(folder: Path) -> Iterator[psycopg.Connection]:
    server = EmbeddedPostgres(folder / "postgres")
    server.prepare()
    try:
        with running(server.process_spec(), folder), psycopg.connect(server.url, autocommit=True) as connection:
            yield connection
    finally:
        server.close()


def test_postgres_keeps_its_data_between_starts(short_path: Path) -> None:
    with postgres(short_path) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('ρ')")
    with postgres(short_path) as connection:
        assert connection.execute("SELECT word FROM kept").fetchall() == [("ρ",)]


def test_postgres_listens_on_a_private_socket_only(short_path: Path) -> None:
    with postgres(short_path) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        for folder in ("postgres", "postgres/run", "postgres/data"):
            assert stat.S_IMODE((short_path / folder).stat().st_mode) & 0o077 == 0


def test_postgres_uses_a_temporary_socket_folder_where_the_path_is_too_long(short_path: Path) -> None:
    folder = short_path / "a, folder: with everything" / ("x" * 100)
    folder.mkdir(parents=True)
    with postgres(folder) as connection:
        borrowed = Path(connection.info.host)
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert stat.S_IMODE(borrowed.stat().st_mode) == 0o700
    assert not borrowed.exists()


@pytest.mark.fault(number=19)
@pytest.mark.parametrize("name", ["x" * 100, "a, folder: with everything", "My Data %41+&?#='ü", "a\nline"])
def test_a_command_beside_a_running_server_finds_its_socket(short_path: Path, name: str) -> None:
    folder = short_path / name
    folder.mkdir()
    with postgres(folder):
        beside = Database(EmbeddedPostgres(folder / "postgres").url)
        leadership = Leadership(beside.url)
        assert leadership.try_acquire()
        leadership.resign()
        beside.dispose()


def test_an_interrupted_initdb_is_not_taken_for_a_cluster(short_path: Path) -> None:
    draft = short_path / "postgres" / "draft-0000"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")
    with postgres(short_path) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_postgres_reports_why_it_cannot_use_its_data(short_path: Path) -> None:
    with postgres(short_path):
        pass
    (short_path / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ProcessFailed, match="initialized by PostgreSQL version 9"), postgres(short_path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs an account for PostgreSQL")
def test_root_makes_folders_traversable_but_not_listable(short_path: Path) -> None:
    closed = short_path / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "postgres")
    assert str(closed) in server.prepare()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o701


def test_valkey_keeps_its_data_between_starts_and_requires_a_password(tmp_path: Path) -> None:
    for expected in (None, b"1"):
        server = EmbeddedValkey(tmp_path / "valkey")
        server.prepare()
        with running(server.process_spec(), tmp_path), redis.Redis.from_url(server.url) as client:
            assert client.get("kept") == expected
            client.set("kept", 1)
            without_password = server.url.replace(server.url.split("@")[0] + "@", "redis://")
            assert "authenticate" in str(find_redis_problem(without_password))
    assert stat.S_IMODE((tmp_path / "valkey" / "valkey.conf").stat().st_mode) == 0o600
