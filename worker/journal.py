"""What an attempt writes to the database: under its lease, and through a restart of the database."""

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session

from store.database import Database
from store.leases import Lease, LeaseLost
from worker.heartbeat import Heartbeat
from worker.outages import sit_out

# A worker that has to stop waits for its database no longer than this; then the lease runs out by itself.
DRAIN_PATIENCE_SECONDS = 10.0

Written = TypeVar("Written")


class Journal:
    """Runs an attempt's writes, each in a transaction of its own, and those that the database missed once more.

    Never longer than the lease may still be ours: then `LeaseLost` is raised, as for a lease that is known to be lost.
    An entry runs again where its commit was not heard of, so it must come to the same when it is made twice.
    """

    def __init__(self, database: Database, lease: Lease, heartbeat: Heartbeat, *, lease_seconds: float) -> None:
        self._database, self._lease_seconds = database, lease_seconds
        self.lease, self.heartbeat = lease, heartbeat

    def write(self, entry: Callable[[Session], Written]) -> Written:
        """Run an entry until the database has it, and give what it gives."""
        return sit_out(lambda: self.write_once(entry), patience_seconds=self._lease_seconds, given_up=self._has_to_stop)

    def write_once(self, entry: Callable[[Session], Written]) -> Written:
        """Run an entry for which it is better to go on than to wait. Raises what the database raises."""
        self.check()
        with self._database.session() as session:
            return entry(session)

    def check(self) -> None:
        """Raises `LeaseLost` where nothing more may be written."""
        if self.heartbeat.lost:
            raise LeaseLost(self.lease.job_id)

    def _has_to_stop(self) -> bool:
        drained_at = self.heartbeat.drained_at
        return drained_at is not None and time.monotonic() - drained_at > DRAIN_PATIENCE_SECONDS
