"""Upgrades and downgrades a database schema, reports its revision, and writes new migrations."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from store.database import Database
from store.pooling import require_sessions

# An arbitrary number, the same for every process that migrates.
ADVISORY_LOCK_ID = 0x67726565


def upgrade(database_url: str, revision: str = "head") -> None:
    """Apply every migration up to `revision`; do nothing where the database has it already.

    Safe to call from several processes at once: an advisory lock serialises them. Raises
    `sqlalchemy.exc.OperationalError` for an unreachable database, and `store.pooling.TransactionPooling`.
    """
    with _lock_migrations(database_url) as config:
        command.upgrade(config, revision)


def downgrade(database_url: str, revision: str) -> None:
    """Revert migrations down to `revision`; "base" leaves an empty database."""
    with _lock_migrations(database_url) as config:
        command.downgrade(config, revision)


def revise(database_url: str, message: str) -> None:
    """Write the migration from an upgraded database to the tables in the code."""
    with _lock_migrations(database_url) as config:
        command.revision(config, message, autogenerate=True, rev_id=f"{int(expected_revision()) + 1:04d}")


@cache
def expected_revision() -> str:
    """Return the revision that this version of GreenTune requires."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "there is at least one migration"
    return head


def current_revision(connection: Connection) -> str | None:
    """Return the revision of a database; None where it was never migrated."""
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _lock_migrations(database_url: str) -> Iterator[Config]:
    # Closing the connection releases the lock, after an error too.
    with Database(database_url) as database:
        require_sessions(database.url)
        with database.engine.connect() as connection:
            # A session-level lock: each migration commits its own transaction.
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK_ID})
            connection.commit()
            config = _config()
            config.attributes["connection"] = connection
            yield config
