"""Checks of PostgreSQL and Redis: whether they accept writes, and whether the schema is current."""

from collections.abc import Iterator

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from cli.doctor.check import CheckResult
from cli.stack.data_folder import discover_service
from cli.stack.embedded import EmbeddedPostgres, find_redis_problem
from migrations.upgrade import current_revision, expected_revision
from runtime.settings import Settings
from store.database import Database
from store.pooling import TransactionPooling, require_sessions

EMBEDDED = "none is named: `greentune serve` brings its own"


def run_checks(settings: Settings) -> Iterator[CheckResult]:
    """Check the servers that the settings name, or the database of a running `greentune serve`."""
    given = settings.model_fields_set
    if "database_url" in given:
        yield from _database(settings.database_url)
    elif discover_service(settings.data_dir) is not None:
        yield from _database(EmbeddedPostgres(settings.data_dir.resolve() / "postgres").url)
    else:
        yield CheckResult("postgresql", "skipped", EMBEDDED, "set DATABASE_URL to check a server of your own")
    if "redis_url" in given:
        yield _redis(settings.redis_url)
    else:
        yield CheckResult("redis", "skipped", EMBEDDED, "set REDIS_URL to check a server of your own")


def _database(url: str) -> Iterator[CheckResult]:
    try:
        database = Database(url)
    except ValueError as error:
        mend = "set DATABASE_URL to postgresql://USER:PASSWORD@HOST/NAME"
        yield CheckResult("postgresql", "failed", str(error), mend)
        return
    # Without the user and the password.
    host = database.url.host or database.url.query.get("host", "a local socket")
    place = f"{host}, database {database.url.database}"
    try:
        with database, database.engine.connect() as connection:
            version = connection.execute(text("SHOW server_version")).scalar_one()
            yield CheckResult("postgresql", "ok", f"{version} answers at {place}")
            yield _writable(connection)
            revision, expected = current_revision(connection), expected_revision()
        require_sessions(database.url)
        yield CheckResult("database sessions", "ok", "each connection has a session of its own")
    except TransactionPooling as error:
        mend = "connect to PostgreSQL itself, or set pool_mode = session in PgBouncer"
        yield CheckResult("database sessions", "failed", str(error), mend)
        return
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", None) or type(error).__name__).strip()
        mend = "start the server, or set DATABASE_URL to one that runs"
        yield CheckResult("postgresql", "failed", f"does not answer at {place}: {why}", mend)
        return
    if revision == expected:
        yield CheckResult("schema", "ok", f"at revision {revision}")
    else:
        found = f"at revision {revision or 'none'}, but this version needs {expected}"
        yield CheckResult("schema", "failed", found, "run `greentune migrate`")


def _writable(connection: Connection) -> CheckResult:
    if connection.execute(text("SHOW transaction_read_only")).scalar_one() == "off":
        return CheckResult("database writes", "ok", "it takes writes")
    mend = "name the primary, not a standby, or reset default_transaction_read_only"
    return CheckResult("database writes", "failed", "it is read-only: jobs are refused", mend)


def _redis(url: str) -> CheckResult:
    mend = "start the server, or set REDIS_URL to one that runs"
    try:
        fault = find_redis_problem(url)
    except ValueError as error:
        return CheckResult("redis", "failed", str(error), "set REDIS_URL to redis://HOST:PORT/0")
    return CheckResult("redis", "failed", f"it {fault}", mend) if fault else CheckResult("redis", "ok", "answers")
