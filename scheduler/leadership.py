"""Leader election among schedulers by a PostgreSQL advisory lock, and the NOTIFY that wakes the leader."""

from contextlib import suppress
from typing import Any

import psycopg
import structlog
from sqlalchemy import URL

from store.database import TCP, WAKE_CHANNEL, connection_arguments

log = structlog.get_logger()

LEADER_LOCK_ID = 0x6EE7_0001  # any number that is not locked elsewhere in this database
# With these the server releases the lock of a leader whose machine was lost within about half a minute.
SET_TCP_TIMEOUTS = "; ".join(f"SET tcp_{name.removeprefix('tcp_')} = {value}" for name, value in TCP.items())
COUNT_OWN_LOCKS = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND pid = pg_backend_pid() AND granted"
)
# The leader queries its lock at every tick: one that has not for this long hangs, or was stopped.
TERMINATE_STALE_LEADER = """
    SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND objid = %s AND granted AND pid <> pg_backend_pid()
      AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND state_change < clock_timestamp() - make_interval(secs => %s)
"""


class Leadership:
    """One database connection that holds the lock or tries to take it, and listens for NOTIFY.

    A leader without a query for `stale_after_seconds` is deposed. It may wake in the middle of a tick: everything that
    a tick does is safe beside another scheduler's tick.
    """

    def __init__(self, url: URL, *, stale_after_seconds: float = 60.0) -> None:
        self._connection_arguments = connection_arguments(url)
        self._stale_after_seconds = stale_after_seconds
        self._connection: psycopg.Connection[Any] | None = None

    def try_acquire(self) -> bool:
        """Whether this process leads: it holds the lock, or has just taken it.

        Raises `psycopg.OperationalError` where the database is unreachable, or this leader was deposed.
        """
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(**self._connection_arguments, autocommit=True)
            self._connection.execute(f"{SET_TCP_TIMEOUTS}; LISTEN {WAKE_CHANNEL}")
        held = self._connection.execute(COUNT_OWN_LOCKS, (LEADER_LOCK_ID,)).fetchone()
        if held and held[0]:
            return True
        won = self._connection.execute("SELECT pg_try_advisory_lock(%s)", (LEADER_LOCK_ID,)).fetchone()
        if won and won[0]:
            log.info("scheduler.leads")
            return True
        deposed = self._connection.execute(
            TERMINATE_STALE_LEADER, (LEADER_LOCK_ID, self._stale_after_seconds)
        ).fetchall()
        if deposed:
            log.warning("scheduler.deposed_another", silent_for_s=self._stale_after_seconds)
        return False

    def wait(self, seconds: float) -> None:
        """Wait for a NOTIFY, for at most `seconds`."""
        if self._connection is not None and not self._connection.closed:
            for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                pass

    def resign(self) -> None:
        """Release the lock and close the connection."""
        if self._connection is not None:
            # The server may take a while to notice a closed connection.
            with suppress(psycopg.Error):
                self._connection.execute("SELECT pg_advisory_unlock_all()")
            self._connection.close()
            self._connection = None
