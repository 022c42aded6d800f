"""A read-only database is treated as unavailable: requests are answered 503, and all processes wait for it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from runtime.settings import Settings
from scheduler import Scheduler
from store.database import Database, connection_arguments
from store.repositories.jobs import JobRepository
from store.repositories.workers import WorkerRepository
from store.tables import Job
from tests.api.conftest import NOW, Submit
from worker.database_retry import retry_while_database_down

pytestmark = pytest.mark.fault(number=22)


@contextmanager
def server_setting(database: Database, name: str, value: str, *, kept: bool = False) -> Iterator[None]:
    """Apply a database setting to every session, including open ones.

    If `kept`, the sessions of that time outlive the setting and keep it, as in PostgreSQL.
    """
    of_name = sql.Identifier(str(database.url.database))
    own = sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}").format(
        sql.Literal(database.url.database)
    )
    with psycopg.connect(**connection_arguments(database.url.set(database="postgres")), autocommit=True) as server:
        server.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(of_name, sql.SQL(name), sql.Literal(value)))
        server.execute(own)
        try:
            yield
        finally:
            server.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(of_name))
            if not kept:
                server.execute(own)


def read_only(database: Database) -> Any:
    return server_setting(database, "default_transaction_read_only", "on")


def assert_unavailable(response: Any, reason: str) -> None:
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) > 0
    assert reason in response.json()["detail"]
    assert "SQL" not in response.text


def test_a_read_only_database_refuses_writes_and_answers_reads(
    client: TestClient, submit: Submit, database: Database, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.health.readiness.CACHE_SECONDS", 0.0)
    with read_only(database):
        assert_unavailable(submit(), "is read-only at present")
        assert_unavailable(client.post(f"/jobs/{job_id}/cancel"), "is read-only at present")
        assert client.get(f"/jobs/{job_id}").status_code == 200
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert [error["field"] for error in ready.json()["errors"]] == ["database"]
        assert "read-only" in ready.json()["detail"]

    assert submit().status_code == 201
    assert client.get("/readyz").status_code == 200


def test_sessions_that_began_read_only_are_not_kept(
    client: TestClient, submit: Submit, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.health.readiness.CACHE_SECONDS", 0.0)
    for asks_readiness in (True, False):
        with server_setting(database, "default_transaction_read_only", "on", kept=True):
            with database.session() as one, database.session() as another:
                assert [session.scalar(text("SELECT 1")) for session in (one, another)] == [1, 1]
            assert_unavailable(submit(), "is read-only at present")
            assert client.get("/jobs").status_code == 200
            assert client.get("/readyz").status_code == 503
            assert client.get("/jobs").status_code == 200
        if asks_readiness:
            statuses = [client.get("/readyz").status_code for _ in range(2)]
            assert statuses[-1] == 200
        else:
            statuses = [submit().status_code for _ in range(2)]
            assert statuses[-1] == 201
        with pytest.raises(OperationalError), database.session() as session:
            session.execute(text("UPDATE api_keys SET name = name"))
        for _ in range(2):
            with database.session() as one, database.session() as another:
                for session in (one, another):
                    session.execute(text("UPDATE api_keys SET name = name WHERE false"))


def test_a_key_whose_last_use_is_long_ago_can_still_read(
    client: TestClient, database: Database, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.access.authenticator.CACHE_SECONDS", 0.0)
    with database.session() as session:
        session.execute(text("UPDATE api_keys SET last_used_at = NULL"))
    with read_only(database):
        assert client.get(f"/jobs/{job_id}").status_code == 200


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("25006", "is read-only at present"),
        ("42501", "does not let this service write"),
        ("53100", "has no room left on its disk"),
        ("53200", "has no memory left"),
        ("53300", "has no connection left"),
        ("57P01", "is being shut down"),
        ("57P03", "is being started"),
        ("58030", "does not answer"),
        ("40P01", "does not answer"),
    ],
)
def test_a_refusal_by_the_database_server_is_a_503(
    submit: Submit, dataset_id: str, database: Database, code: str, reason: str
) -> None:
    with database.session() as session:
        session.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN RAISE EXCEPTION 'gtk_marker' USING ERRCODE = '{code}'; END $$"
            )
        )
        session.execute(text("CREATE TRIGGER refuse BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION refuse()"))

    response = submit()

    assert_unavailable(response, reason)
    assert "gtk_marker" not in response.text


def test_readiness_detects_missing_write_privileges(
    client: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "api.health.readiness.CAN_WRITE_QUERY", text("SELECT has_table_privilege('pg_monitor', 'jobs', 'INSERT')")
    )

    assert client.get("/readyz").status_code == 503


def test_a_scheduler_waits_and_continues(
    settings: Settings, database: Database, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"zones": {"FR": "static"}, "tick_seconds": 0.2})
    stop = threading.Event()
    scheduler = Scheduler(settings)
    running = threading.Thread(target=scheduler.run, args=(stop,))
    with read_only(database):
        running.start()
        time.sleep(1.0)
        assert running.is_alive()
    try:
        wait_until(lambda: is_dispatched(database, job_id))
        wait_until(lambda: has_registered(database))
    finally:
        stop.set()
        running.join(20)


def test_a_worker_waits_for_a_database_that_takes_no_writes(database: Database, job_id: str) -> None:
    tries = 0

    def record() -> None:
        nonlocal tries
        tries += 1
        with database.session() as session:
            JobRepository(session).record(job_id, "told.late", at=NOW)

    with read_only(database):
        with pytest.raises(OperationalError):
            record()
        waiting = threading.Thread(target=retry_while_database_down, args=(record,), kwargs={"timeout_seconds": 30})
        waiting.start()
        wait_until(lambda: tries > 2)
    waiting.join(30)
    with database.session() as session:
        assert session.scalar(text("SELECT count(*) FROM events WHERE type = 'told.late'")) == 1


def is_dispatched(database: Database, job_id: str) -> bool:
    with database.session() as session:
        return session.get_one(Job, job_id).dispatched_at is not None


def has_registered(database: Database) -> bool:
    with database.session() as session:
        return bool(WorkerRepository(session).list_live(within=timedelta(minutes=1), role="scheduler"))


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)
