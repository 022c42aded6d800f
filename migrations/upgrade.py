"""Brings a database to the schema that this version of GreenTune expects, and says where it stands."""

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

# Any number will do, as long as every process that migrates takes the same one.
ADVISORY_LOCK_ID = 0x67726565


def upgrade(database_url: str, revision: str = "head") -> None:
    """Apply every migration up to `revision`; does nothing where the database is there already.

    Several processes may call it at once: they take turns. Raises `sqlalchemy.exc.OperationalError` where
    the database cannot be reached, and `store.pooling.TransactionPooling` where it is reached without a session.
    """
    with _lock_migrations(database_url) as config:
        command.upgrade(config, revision)


def downgrade(database_url: str, revision: str) -> None:
    """Undo migrations down to `revision`; "base" leaves an empty database."""
    with _lock_migrations(database_url) as config:
        command.downgrade(config, revision)


def revise(database_url: str, message: str) -> None:
    """Write the migration that takes an upgraded database to the tables as the code has them now."""
    with _lock_migrations(database_url) as config:
        command.revision(config, message, autogenerate=True, rev_id=f"{_newest_number() + 1:04d}")


@cache
def expected_revision() -> str:
    """The revision that this version of GreenTune works with."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "there is at least one migration"
    return head


def current_revision(connection: Connection) -> str | None:
    """The revision that a database stands at; None where it was never migrated."""
    return MigrationContext.configure(connection).get_current_revision()


def _newest_number() -> int:
    return int(expected_revision())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _lock_migrations(database_url: str) -> Iterator[Config]:
    database = Database(database_url)
    try:
        require_sessions(database.url)
        with database.engine.connect() as connection:
            # Held by the session, not by a transaction: each migration commits its own.
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK_ID})
            connection.commit()
            config = _config()
            config.attributes["connection"] = connection
            yield config
    finally:
        # Closing the connection gives the lock back, after an error too.
        database.dispose()
