"""Connects to PostgreSQL: engine, sessions, the base of repositories, errors, and the scheduler's wake-up."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import IntEnum
from typing import Any, Self, TypeVar

import structlog
from pydantic_core import to_json
from sqlalchemy import URL, Engine, ExceptionContext, Select, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

log = structlog.get_logger()

Row = TypeVar("Row")

WAKE_CHANNEL = "greentune_wake"
DISPOSALS = "disposals"  # of the pool before a connection was opened, among what is known of the connection
CONNECT_TIMEOUT_SECONDS = 5
# A connection that was lost silently is noticed within about half a minute instead of a quarter of an hour.
TCP = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
DRIVERS = ("postgresql", "postgresql+psycopg")
# SQLSTATEs that psycopg raises as statement errors although the server is the cause: read-only, a transaction timeout,
# or missing write privileges.
READ_ONLY = "25006"
SERVER_FAULTS = frozenset({READ_ONLY, "25P03", "25P04", "42501"})
OUTAGE_REASONS: Mapping[str | None, str] = {
    READ_ONLY: "is read-only at present",
    "42501": "does not let this service write",
    "53100": "has no room left on its disk",
    "53200": "has no memory left",
    "53300": "has no connection left",
    "57P01": "is being shut down",
    "57P02": "is being restarted",
    "57P03": "is being started",
}


class LockNamespace(IntEnum):
    """Namespaces of advisory locks on names."""

    DATASET_FILE = 0x6EE7_0002
    IDEMPOTENCY_KEY = 0x6EE7_0003
    WEBHOOK_OWNER = 0x6EE7_0004


class Database:
    """A PostgreSQL database; `session()` commits at its end and rolls back on an error. A context disposes of it."""

    def __init__(self, url: str, *, statement_timeout_seconds: float | None = None) -> None:
        """Create the engine for `postgresql://…`; raises `ValueError` for any other URL.

        `statement_timeout_seconds` limits each statement, waits for locks included, and the idle time in a transaction,
        so that a frozen process does not keep a job's row locked.
        """
        self.url = _parse_url(url)
        self._disposals = 0
        # Times are returned in the connection's time zone.
        settings = ["SET timezone = 'UTC'"]
        if statement_timeout_seconds is not None:
            milliseconds = round(1000 * statement_timeout_seconds)
            settings += [
                f"SET statement_timeout = {milliseconds}",
                f"SET idle_in_transaction_session_timeout = {milliseconds}",
            ]
        self.engine: Engine = create_engine(
            self.url,
            pool_pre_ping=True,
            # PostgreSQL rejects NaN (a loss may be NaN): it becomes null. Mappings other than dict are converted.
            json_serializer=lambda value: to_json(value, inf_nan_mode="null", fallback=dict).decode(),
            # Errors must not contain values of rows, such as lease tokens and users' texts.
            hide_parameters=True,
            connect_args=connection_arguments(self.url),
        )
        event.listen(self.engine, "handle_error", _as_operational_error, retval=True)

        # Not in the startup message, whose `options` a connection pooler does not pass on.
        @event.listens_for(self.engine, "connect")
        def prepare_connection(connection: Any, entry: ConnectionPoolEntry) -> None:
            entry.info[DISPOSALS] = self._disposals
            connection.autocommit = True
            connection.execute("; ".join(settings))
            connection.autocommit = False

        # A connection in use elsewhere when the pool is disposed of would otherwise stay open.
        @event.listens_for(self.engine, "checkin")
        def close_left_over(_: object, entry: ConnectionPoolEntry) -> None:
            if entry.info.get(DISPOSALS) != self._disposals:
                entry.invalidate()

        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        with self._sessions() as session, session.begin():
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Open a session for reading whose statements all see the database as of the first of them."""
        with self._sessions() as session, session.begin():
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    def dispose(self) -> None:
        """Close every connection: those in use as they are returned. Sessions opened later get new ones."""
        self._disposals += 1
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispose()


class Repository:
    """Queries and writes of one kind of row, inside the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session


def connection_arguments(url: URL) -> dict[str, Any]:
    """Return psycopg's connection arguments for a SQLAlchemy URL, as SQLAlchemy's own dialect reads it.

    The URL is not rendered for libpq, whose syntax is stricter. Time limits are added where the URL has none.
    """
    _, arguments = url.get_dialect()().create_connect_args(url)
    return {"connect_timeout": CONNECT_TIMEOUT_SECONDS, **TCP, **arguments}


def describe_outage(error: BaseException) -> str:
    """Return why the database is unavailable, without quoting the server's message: "is read-only at present"."""
    fault = error.orig if isinstance(error, DBAPIError) else error
    return OUTAGE_REASONS.get(getattr(fault, "sqlstate", None), "does not answer")


class InvalidDatabaseUrl(ValueError):
    """DATABASE_URL cannot be read, or names another kind of database."""


def _parse_url(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise InvalidDatabaseUrl(
            "DATABASE_URL cannot be read: expected postgresql://USER:PASSWORD@HOST:PORT/NAME, with %40 for an @ in a "
            "name or password; several hosts as postgresql://USER:PASSWORD@/NAME?host=HOST:PORT&host=HOST:PORT"
        ) from None
    if url.drivername not in DRIVERS:
        raise InvalidDatabaseUrl(
            f"DATABASE_URL: GreenTune keeps its data in PostgreSQL, not {url.drivername}: expected postgresql://…"
        )
    options = url.query.get("options")
    # SQLAlchemy collects a repeated parameter in a tuple, which drivers do not accept.
    return url if options is None or isinstance(options, str) else url.update_query_dict({"options": " ".join(options)})


def _as_operational_error(context: ExceptionContext) -> OperationalError | None:
    """Return a server's fault as an `OperationalError`, which all callers retry.

    A read-only session is discarded with its pool: it would keep `default_transaction_read_only` from its start, and a
    session of a demoted primary never becomes writable.
    """
    raised = context.sqlalchemy_exception
    code = getattr(context.original_exception, "sqlstate", None)
    if code == READ_ONLY:
        context.is_disconnect = True
    if raised is None or isinstance(raised, OperationalError) or code not in SERVER_FAULTS:
        return None
    return OperationalError(
        context.statement,
        None,
        context.original_exception,
        hide_parameters=True,
        connection_invalidated=context.is_disconnect,
    )


@contextmanager
def isolate_errors(log_event: str, **fields: str | None) -> Iterator[None]:
    """Log an error of the block instead of raising it, so that other work goes on; raises `DBAPIError` alone."""
    try:
        yield
    except DBAPIError:
        raise
    except Exception:
        log.exception(log_event, **fields)


def lock_row(
    session: Session, query: Select[Row], *, read: bool = False, key_share: bool = False, skip_locked: bool = False
) -> Row | None:
    """Return the only row of a query, locked until the transaction ends, with its present values; None without a match.

    `read` and `key_share` weaken the lock to FOR SHARE, FOR NO KEY UPDATE or, together, FOR KEY SHARE.
    """
    locking = query.with_for_update(read=read, key_share=key_share, skip_locked=skip_locked)
    return session.scalars(locking.execution_options(populate_existing=True)).one_or_none()


def lock_name(session: Session, namespace: LockNamespace, name: str) -> None:
    """Wait for other transactions that have locked this name, and lock it until this transaction ends."""
    session.execute(select(func.pg_advisory_xact_lock(namespace.value, func.hashtext(name))))


def database_now(session: Session) -> datetime:
    """Return the time of the database's clock at the start of this transaction."""
    return session.execute(select(func.now())).scalar_one()


def wake_scheduler(session: Session) -> None:
    """Notify the scheduler, when this transaction commits, that there is work."""
    session.execute(text(f"NOTIFY {WAKE_CHANNEL}"))
