"""Transactions of an attempt under its lease, retried while the database is unreachable."""

import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy.orm import Session

from store.database import Database
from store.lifecycle.leases import Lease, LeaseLost
from worker.database_retry import retry_while_database_down
from worker.training.heartbeat import LeaseHeartbeat

# The longest that a draining worker waits for the database; then the lease expires.
DRAIN_TIMEOUT_SECONDS = 10.0

T = TypeVar("T")
P = ParamSpec("P")


class LeasedWriter:
    """Runs an attempt's operations, each in its own transaction, with retries for at most the lease's time.

    Raises `LeaseLost` where the lease is lost. An operation whose commit was not confirmed runs again: it must be
    idempotent.
    """

    def __init__(self, database: Database, lease: Lease, heartbeat: LeaseHeartbeat, *, lease_seconds: float) -> None:
        self._database, self._lease_seconds = database, lease_seconds
        self.lease, self.heartbeat = lease, heartbeat

    def run_in_transaction(self, operation: Callable[[Session], T]) -> T:
        """Return the result of an operation, retried until it is committed."""
        return retry_while_database_down(
            lambda: self.run_in_transaction_once(operation),
            timeout_seconds=self._lease_seconds,
            should_stop=self._drain_timed_out,
        )

    def write(self, operation: Callable[Concatenate[Session, Lease, P], T], *args: P.args, **options: P.kwargs) -> T:
        """Return the result of an operation that takes session and lease, retried until it is committed."""
        return self.run_in_transaction(lambda session: operation(session, self.lease, *args, **options))

    def run_in_transaction_once(self, operation: Callable[[Session], T]) -> T:
        """Return the result of an operation, without retries. Raises what the database raises."""
        self.check_lease()
        with self._database.session() as session:
            return operation(session)

    def check_lease(self) -> None:
        """Raise `LeaseLost` where the lease is lost."""
        if self.heartbeat.lost:
            raise LeaseLost(self.lease.job_id)

    def _drain_timed_out(self) -> bool:
        drained_at = self.heartbeat.drained_at
        return drained_at is not None and time.monotonic() - drained_at > DRAIN_TIMEOUT_SECONDS
