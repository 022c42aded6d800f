"""A database that is lent again is as a new one, whatever the test before did to it."""

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from greencore.clock import utc_now
from runtime.settings import Settings
from store.database import Database
from tests.databases import DatabasePool
from tests.keys import new_key
from tests.scheduler.stage import add_job

OBJECTS = "SELECT relname, relkind FROM pg_class WHERE oid >= 16384 ORDER BY relname"


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        found = connection.execute(text(statement))
        rows = [tuple(row) for row in found.all()] if found.returns_rows else []
    engine.dispose()
    return rows


def oid(url: str) -> object:
    [(found,)] = query(url, "SELECT oid FROM pg_database WHERE datname = current_database()")
    return found


def test_rows_are_gone_and_numbers_begin_again(databases: DatabasePool, settings: Settings) -> None:
    with databases.lend() as first:
        used, objects = oid(first), query(first, OBJECTS)
        with Database(first) as database:
            add_job(database, at=utc_now())
            new_key(settings.model_copy(update={"database_url": first}))
        numbered = query(first, "SELECT nextval(seqrelid::regclass) FROM pg_sequence")
    with databases.lend() as second:
        assert oid(second) == used
        assert query(second, OBJECTS) == objects
        tables = [name for name, kind in objects if kind == "r" and name != "alembic_version"]
        assert len(tables) > 20
        assert [query(second, f"SELECT count(*) FROM {table}") for table in tables] == [[(0,)]] * len(tables)
        assert query(second, "SELECT nextval(seqrelid::regclass) FROM pg_sequence") == [(1,)] * len(numbered)


def test_what_was_left_connected_finds_nothing(databases: DatabasePool) -> None:
    with databases.lend() as first:
        engine: Engine = create_engine(first)
        connection = engine.connect()
        connection.execute(text("SELECT 1"))
    with databases.lend() as second:
        assert second != first
        with pytest.raises(OperationalError):
            connection.execute(text("SELECT count(*) FROM jobs"))
        with pytest.raises(OperationalError, match="does not exist"):
            query(first, "SELECT 1")
    connection.invalidate()
    connection.close()
    engine.dispose()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE audit RENAME TO audit_away",
        "ALTER TABLE jobs ADD COLUMN more integer",
        "CREATE TABLE more (id integer)",
        "CREATE INDEX more ON jobs (owner)",
        "DROP TABLE steps",
        "CREATE FUNCTION more() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA more",
        "ANALYZE",
        "INSERT INTO audit (at, action, target, status, request_id)"
        " SELECT now(), '', '', 1, '' FROM generate_series(1, 5000)",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 1000', current_database()); END $$",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database());"
        " END $$",
    ],
)
def test_a_database_whose_tables_were_changed_is_not_lent_again(databases: DatabasePool, change: str) -> None:
    with databases.lend() as first:
        used = oid(first)
        query(first, change)
    with databases.lend() as second:
        assert oid(second) != used


def test_a_database_that_takes_no_connections_is_not_lent_again(databases: DatabasePool, postgres_url: str) -> None:
    with databases.lend() as first:
        used = oid(first)
        name = first.partition("?")[0].rpartition("/")[2]
        query(postgres_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    with databases.lend() as second:
        assert oid(second) != used
