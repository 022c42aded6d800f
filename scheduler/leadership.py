"""Several schedulers may run, one acts: a PostgreSQL advisory lock elects it, and NOTIFY wakes it."""

from contextlib import suppress

import psycopg
import structlog
from sqlalchemy import URL

from store.database import WAKE_CHANNEL

log = structlog.get_logger()

LOCK = 0x6EE7_0001  # any number that nothing else in this database locks


class Leadership:
    """One connection that holds the lock, or waits for it, and listens. Losing the connection loses both."""

    def __init__(self, url: URL) -> None:
        self._dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection: psycopg.Connection | None = None

    def leads(self) -> bool:
        """Whether this process leads: the lock is taken, or was taken and its connection still stands.

        Raises `psycopg.OperationalError` where the database cannot be reached.
        """
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._dsn, autocommit=True, connect_timeout=5)
            self._connection.execute(f"LISTEN {WAKE_CHANNEL}")
        held = self._connection.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND pid = pg_backend_pid()",
            (LOCK,),
        ).fetchone()
        if held and held[0]:
            return True
        won = self._connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        if won and won[0]:
            log.info("scheduler.leads")
            return True
        return False

    def wait(self, seconds: float) -> None:
        """Return when somebody calls, at the latest after `seconds`."""
        if self._connection is not None and not self._connection.closed:
            for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                pass

    def resign(self) -> None:
        """Give the lock up, so that another can have it at once."""
        if self._connection is not None:
            # A closed connection alone is noticed by the server in its own time.
            with suppress(psycopg.Error):
                self._connection.execute("SELECT pg_advisory_unlock_all()")
            self._connection.close()
            self._connection = None
