"""Timeouts of a connection, and JSON that PostgreSQL accepts."""

import math
import time
from types import MappingProxyType

import pytest
from sqlalchemy import literal, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

from store.database import Database


def test_an_idle_transaction_is_ended_and_its_locks_released(database: Database) -> None:
    frozen = Database(database.url.render_as_string(hide_password=False), statement_timeout_seconds=0.2)
    with frozen.engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
        time.sleep(0.5)
        with database.session() as other:
            assert other.scalar(text("SELECT pg_try_advisory_xact_lock(1)"))
        with pytest.raises(DBAPIError, match="idle-in-transaction"):
            connection.execute(text("SELECT 1"))
    frozen.dispose()


def test_a_connection_in_use_when_its_database_is_disposed_of_is_closed_once_it_is_returned(database: Database) -> None:
    other = Database(database.url.render_as_string(hide_password=False))
    held = other.engine.connect()
    opened = held.connection.dbapi_connection
    assert opened is not None
    other.dispose()
    with other.session() as session:
        assert session.scalar(text("SELECT 1")) == 1
    held.close()
    assert opened.closed
    with other.session() as session:  # later connections are kept as before
        backend = session.scalar(text("SELECT pg_backend_pid()"))
    with other.session() as session:
        assert session.scalar(text("SELECT pg_backend_pid()")) == backend
    other.dispose()


def test_numbers_that_json_lacks_become_null(database: Database) -> None:
    given = {"loss": [1.5, math.nan, -math.inf], "parts": MappingProxyType({"GPU": math.nan})}
    with database.session() as session:
        stored = session.scalar(select(literal(given, JSONB)))
    assert stored == {"loss": [1.5, None, None], "parts": {"GPU": None}}
