"""Keeps a lease alive while a job runs, and brings back what its owner wants of it."""

import threading
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import OperationalError

from greencore.clock import utc_now
from store.database import Database
from store.leases import Lease, LeaseLost, renew

log = structlog.get_logger()


class Heartbeat:
    """Renews a lease every `interval_seconds` while it is open.

    `control` is the newest wish: `run`, `drain`, `pause` or `cancel`. `lost` is True once somebody else owns the job,
    or once the database could not be reached for as long as the lease lasts: then nothing more may be written.
    """

    def __init__(self, database: Database, lease: Lease, *, interval_seconds: float, lease_seconds: float) -> None:
        self._database, self._lease = database, lease
        self._interval_seconds, self._lease_seconds = interval_seconds, lease_seconds
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.control = "run"
        self.lost = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()

    def _beat(self) -> None:
        renewed = utc_now()
        while not self._closing.wait(self._interval_seconds):
            try:
                with self._database.session() as session:
                    self.control = renew(session, self._lease, at=utc_now(), lease_seconds=self._lease_seconds)
                renewed = utc_now()
            except LeaseLost:
                log.warning("lease.lost", job=self._lease.job_id, attempt=self._lease.attempt)
                self.lost = True
                return
            except OperationalError as error:
                silent = (utc_now() - renewed).total_seconds()
                log.warning("heartbeat.failed", job=self._lease.job_id, silent_s=silent, error=str(error.orig))
                if silent > self._lease_seconds:
                    self.lost = True
                    return
