"""What an attempt writes to the database: under its lease, and through a restart of the database."""

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session

from store.database import Database
from store.lifecycle.leases import Lease, LeaseLost
from worker.training.database_retry import retry_while_database_down
from worker.training.heartbeat import LeaseHeartbeat

# A worker that has to stop waits for its database no longer than this; then the lease runs out by itself.
DRAIN_TIMEOUT_SECONDS = 10.0

T = TypeVar("T")


class LeasedWriter:
    """Runs an attempt's writes, each in a transaction of its own, and those that the database missed once more.

    Never longer than the lease may still be ours: then `LeaseLost` is raised, as for a lease that is known to be lost.
    An entry runs again where its commit was not heard of, so it must come to the same when it is made twice.
    """

    def __init__(self, database: Database, lease: Lease, heartbeat: LeaseHeartbeat, *, lease_seconds: float) -> None:
        self._database, self._lease_seconds = database, lease_seconds
        self.lease, self.heartbeat = lease, heartbeat

    def run_in_transaction(self, operation: Callable[[Session], T]) -> T:
        """Run an entry until the database has it, and give what it gives."""
        return retry_while_database_down(
            lambda: self.run_in_transaction_once(operation),
            timeout_seconds=self._lease_seconds,
            should_stop=self._drain_timed_out,
        )

    def run_in_transaction_once(self, operation: Callable[[Session], T]) -> T:
        """Run an entry for which it is better to go on than to wait. Raises what the database raises."""
        self.check_lease()
        with self._database.session() as session:
            return operation(session)

    def check_lease(self) -> None:
        """Raises `LeaseLost` where nothing more may be written."""
        if self.heartbeat.lost:
            raise LeaseLost(self.lease.job_id)

    def _drain_timed_out(self) -> bool:
        drained_at = self.heartbeat.drained_at
        return drained_at is not None and time.monotonic() - drained_at > DRAIN_TIMEOUT_SECONDS
