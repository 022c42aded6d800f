"""Databases of tests, migrated and empty: cleared and lent again, since to copy and drop one takes 0.1 s."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from migrations.upgrade import upgrade

TEMPLATE = "greentune_template"

# A table that has grown past this makes the next test's plans and scans other than a new database's.
LARGEST_TABLE_BYTES = 128 * 1024

# Of every object that is not PostgreSQL's own, the transaction that wrote its definition; of a table, its statistics.
DEFINITIONS = """
SELECT md5(string_agg(definition, ',' ORDER BY definition)) FROM (
    SELECT format('%s.%s:%s:%s', tableoid, oid, xmin, reltuples) FROM pg_class WHERE oid >= 16384
    UNION ALL SELECT format('%s.%s.%s:%s', tableoid, attrelid, attnum, xmin) FROM pg_attribute WHERE attrelid >= 16384
    UNION ALL SELECT format('%s.%s:%s', tableoid, oid, xmin) FROM pg_attrdef
    UNION ALL SELECT format('%s.%s:%s', tableoid, oid, xmin) FROM pg_constraint WHERE oid >= 16384
    UNION ALL SELECT format('%s.%s:%s', tableoid, oid, xmin) FROM pg_namespace WHERE oid >= 16384
    UNION ALL SELECT format('%s.%s:%s', tableoid, oid, xmin) FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT format('%s.%s:%s', tableoid, oid, xmin) FROM pg_trigger
    UNION ALL SELECT format('%s.%s:%s', tableoid, setdatabase, setrole) FROM pg_db_role_setting
) AS definitions (definition)
"""
TABLES = "SELECT oid::regclass::text, pg_table_size(oid) FROM pg_class WHERE relkind = 'r' AND oid >= 16384"
RESTART_SEQUENCES = "SELECT setval(seqrelid::regclass, seqstart, false) FROM pg_sequence"


class DatabasePool:
    """Databases of one server, each with a template's tables and no rows, for one test at a time."""

    def __init__(self, server_url: str) -> None:
        """Migrate the template on a server whose maintenance database this URL names."""
        self._server_url = server_url
        self._maintenance = create_engine(server_url, isolation_level="AUTOCOMMIT")
        self._free = list[str]()
        self._run(f"CREATE DATABASE {TEMPLATE}")
        upgrade(database_url(server_url, TEMPLATE))
        with self._connect(TEMPLATE) as connection:
            self._definitions = connection.execute(text(DEFINITIONS)).scalar_one()

    @contextmanager
    def lend(self) -> Iterator[str]:
        """Give the URL of a migrated, empty database, under which nothing is found after the block."""
        name = self._free.pop() if self._free else self._copy(TEMPLATE)
        try:
            yield database_url(self._server_url, name)
        finally:
            self._take_back(name)

    @contextmanager
    def lend_without_tables(self) -> Iterator[str]:
        """Give the URL of a database without a table in it, which is dropped after the block."""
        name = self._copy("template1")
        try:
            yield database_url(self._server_url, name)
        finally:
            self._drop(name)

    def close(self) -> None:
        """Close the connection to the server."""
        self._maintenance.dispose()

    def _take_back(self, name: str) -> None:
        """Rename and clear a database, so that whatever still uses it fails as on a dropped one; or else drop it."""
        renamed = _new_name()
        try:
            self._run(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'")
            self._run(f"ALTER DATABASE {name} RENAME TO {renamed}")
        except DBAPIError:  # connected to again meanwhile
            self._drop(name)
            return
        try:
            with self._connect(renamed) as connection:
                cleared = self._clear(connection)
        except DBAPIError:  # it takes no connections, or only reads
            cleared = False
        if cleared:
            self._free.append(renamed)
        else:
            self._drop(renamed)

    def _clear(self, connection: Connection) -> bool:
        """Delete all rows, and return true, unless the tables are no longer the template's or have grown large."""
        if connection.execute(text(DEFINITIONS)).scalar_one() != self._definitions:
            return False
        tables = connection.execute(text(TABLES)).all()
        if any(size > LARGEST_TABLE_BYTES for _, size in tables):
            return False
        deletions = [f"DELETE FROM {table}" for table, _ in tables if table != "alembic_version"]
        # As a replica does, without checking foreign keys.
        connection.execute(text("; ".join(("SET LOCAL session_replication_role = replica", *deletions))))
        connection.execute(text(RESTART_SEQUENCES))
        connection.commit()
        return True

    def _copy(self, template: str) -> str:
        name = _new_name()
        self._run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def _drop(self, name: str) -> None:
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        with self._maintenance.connect() as connection:
            connection.execute(text(statement))

    @contextmanager
    def _connect(self, name: str) -> Iterator[Connection]:
        engine: Engine = create_engine(database_url(self._server_url, name), poolclass=NullPool)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()


def database_url(server_url: str, name: str) -> str:
    """URL of another database on the same server."""
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


def _new_name() -> str:
    return f"test_{uuid4().hex}"
