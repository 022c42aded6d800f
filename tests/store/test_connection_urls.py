"""Any URL that SQLAlchemy's engine accepts also works for connections made without SQLAlchemy."""

import asyncio
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, make_url, text

from scheduler.leadership import Leadership
from store.database import Database, connection_arguments
from store.event_feed import EventFeed
from store.repositories.jobs import JobRepository
from tests.databases import TEMPLATE, DatabasePool
from tests.scheduler.stage import START, add_job

pytestmark = pytest.mark.fault(number=19)

ODD = "a b%20+@:/?#&='\"\\ü\N{SNOWMAN}"


@pytest.fixture
def odd_database(postgres_url: str, databases: DatabasePool) -> Iterator[Database]:
    """A copy of the template of `databases` whose user, password, name, folder and options need escaping in URLs."""
    role, name = (f"{ODD}{uuid4().hex[:6]}" for _ in range(2))
    with (
        tempfile.TemporaryDirectory(prefix="My Data %41+@&=ü ") as folder,
        psycopg.connect(**connection_arguments(make_url(postgres_url)), autocommit=True) as server,
    ):
        socket_folder = Path(folder) / "var run"
        socket_folder.symlink_to(str(make_url(postgres_url).query["host"]))
        of_role, of_name = sql.Identifier(role), sql.Identifier(name)
        server.execute(sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(of_role, sql.Literal(ODD)))
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(of_name, sql.Identifier(TEMPLATE)))
        query = {"host": str(socket_folder), "options": "-c search_path=public -c application_name=an\\ odd\\ one"}
        url = URL.create("postgresql+psycopg", username=role, password=ODD, database=name, query=query)
        database = Database(url.render_as_string(hide_password=False))
        try:
            yield database
        finally:
            database.dispose()
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(of_name))
            server.execute(sql.SQL("DROP ROLE {}").format(of_role))


def test_a_scheduler_leads_with_any_url(odd_database: Database) -> None:
    leadership = Leadership(odd_database.url)
    try:
        assert leadership.try_acquire()
        with odd_database.session() as session:
            assert session.scalar(text("SELECT current_setting('application_name')")) == "an odd one"
            assert session.scalar(text("SELECT current_setting('timezone')")) == "UTC"
    finally:
        leadership.resign()


def test_a_stream_receives_notifications_with_any_url(odd_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.event_feed.CHECK_SECONDS", 60.0)
    monkeypatch.setattr("store.event_feed.RECONNECT_SECONDS", 60.0)

    assert second_event(odd_database) == "recorded.later"


def test_a_stream_polls_while_it_cannot_listen(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(**_: Any) -> None:
        raise psycopg.OperationalError("no connection left")

    monkeypatch.setattr("store.event_feed.CHECK_SECONDS", 60.0)
    monkeypatch.setattr("store.event_feed.RECONNECT_SECONDS", 0.1)
    monkeypatch.setattr(psycopg.AsyncConnection, "connect", refused)

    assert second_event(database) == "recorded.later"


def second_event(database: Database) -> str:
    """Return the type of an event that is written while a follower waits for it."""
    job_id = add_job(database)

    async def follow() -> str:
        feed = EventFeed(database)
        with feed.subscribe(job_id):
            await asyncio.sleep(0.5)  # the listener listens by then, or has failed to
            reader = feed.stream_batches(job_id, after=0, quiet_seconds=60)
            await anext(reader)
            asyncio.get_running_loop().run_in_executor(None, record_later)
            async with asyncio.timeout(5):
                return str((await anext(reader)).events[0].type)

    def record_later() -> None:
        with database.session() as session:
            JobRepository(session).record(job_id, "recorded.later", at=START)

    return asyncio.run(follow())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:a b@h/d", {"user": "u", "password": "a b", "host": "h", "dbname": "d"}),
        ("postgresql+psycopg://u:p%20%40@h:5/d", {"password": "p @", "port": 5}),
        ("postgresql://u@/d?host=/My Data/var/run", {"host": "/My Data/var/run"}),
        ("postgresql://u@/d?host=/My%20Data/var+run", {"host": "/My Data/var run"}),
        ("postgresql://u@/d?host=a:1&host=b:2", {"host": "a,b", "port": "1,2"}),
        ("postgresql://u@/d?host=a,b&port=1,2", {"host": "a,b", "port": "1,2"}),
        ("postgresql://u@[::1]:5/d?sslmode=verify-full&sslrootcert=/My CA.pem", {"sslrootcert": "/My CA.pem"}),
        (
            "postgresql://u@h/d?options=-c%20search_path%3Da&options=-c geqo=off",
            {"options": "-c search_path=a -c geqo=off"},
        ),
        ("postgresql://u@h/d?connect_timeout=17&keepalives_idle=3", {"connect_timeout": "17", "keepalives_idle": "3"}),
        ("postgresql:///d?service=a service", {"service": "a service", "dbname": "d"}),
    ],
)
def test_a_url_is_read_as_sqlalchemy_reads_it(url: str, expected: dict[str, object]) -> None:
    arguments = connection_arguments(Database(url).url)

    assert {name: arguments[name] for name in expected} == expected
    assert arguments["tcp_user_timeout"] > 0


@pytest.mark.parametrize("url", ["", "db", "mysql://u@h/d", "postgresql+asyncpg://h/d", "postgresql://u@a:1,b:2/d"])
def test_a_url_of_another_database_is_refused_with_the_settings_name(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape("DATABASE_URL")):
        Database(url)
