"""Timeouts of a connection."""

import time

import pytest
from sqlalchemy import text
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
