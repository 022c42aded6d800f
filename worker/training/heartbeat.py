"""Renews a job's lease while it runs, reads its owner's requests, and kills a process that does not stop."""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Self

import psutil
import structlog
from sqlalchemy.exc import DBAPIError

from greencore.clock import utc_now
from greencore.energy import UnreportedPeriod
from runtime.settings import Settings
from store.database import Database
from store.lifecycle import progress
from store.lifecycle.leases import Lease, LeaseLost, renew

log = structlog.get_logger()

# Time for a process whose lease is lost to notice it and stop.
LOST_GRACE_SECONDS = 5.0
LEASE_CHECK_SECONDS = 0.5
CLOSE_SECONDS = 5.0


class LeaseHeartbeat:
    """Renews a lease while it is open, and kills the process where it does not stop as it must.

    `control` is the newest request: `run`, `drain`, `defer`, `pause` or `cancel`. `lost` is True once another owns the
    job, or the database was unreachable for the lease's time: then nothing more may be written, and the process is
    killed if it does not stop. It is also killed, and its job cancelled, where a cancel exceeds its grace period.
    Silence is measured on the machine's monotonic clock, the lease on the database's.

    `unstored` returns the period whose energy is not stored yet, which each renewal sends; until a meter is open, the
    time since the claim.
    """

    def __init__(self, database: Database, lease: Lease, settings: Settings) -> None:
        self._database, self._lease, self._settings = database, lease, settings
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._beat, "heartbeat"), (self._end_after_lost_lease, "watchdog"))
        ]
        self._claimed_at, self._claimed_monotonic = utc_now(), time.monotonic()
        self._renewed_at = self._claimed_monotonic
        self.unstored: Callable[[], UnreportedPeriod | None] = self._time_since_claim
        self._control = "run"
        self._cancel_seen_at: float | None = None
        self.drained_at: float | None = None
        self.lost = False

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(CLOSE_SECONDS)

    def _time_since_claim(self) -> UnreportedPeriod:
        return UnreportedPeriod(self._claimed_at, time.monotonic() - self._claimed_monotonic)

    @property
    def control(self) -> str:
        if self._control == "run" and self.drained_at is not None:
            return "drain"
        return self._control

    def drain(self) -> None:
        """Request a drain since the worker stops; only sets a flag, so that a signal handler may call it."""
        if self.drained_at is None:
            self.drained_at = time.monotonic()

    def _beat(self) -> None:
        while not self._closing.wait(self._seconds_to_next_beat()):
            try:
                with self._database.session() as session:
                    self._control = renew(
                        session,
                        self._lease,
                        lease_seconds=self._settings.lease_seconds,
                        unstored=self.unstored(),
                        host_seconds=time.monotonic(),
                    )
                self._renewed_at = time.monotonic()
                self._enforce_cancel()
            except LeaseLost:
                log.warning("lease.lost", job=self._lease.job_id, attempt=self._lease.attempt)
                self.lost = True
                return
            except DBAPIError as error:
                silent = time.monotonic() - self._renewed_at
                log.warning(
                    "heartbeat.failed", job=self._lease.job_id, silent_s=round(silent, 1), error=str(error.orig)
                )

    def _seconds_to_next_beat(self) -> float:
        """Return the seconds until the next beat, at the latest the end of a cancel's grace period."""
        pause = self._settings.heartbeat_seconds
        if self._cancel_seen_at is not None:
            left = self._cancel_seen_at + self._settings.cancel_grace_seconds - time.monotonic()
            pause = min(pause, max(left, 0.1))
        return pause

    def _enforce_cancel(self) -> None:
        if self._control != "cancel":
            self._cancel_seen_at = None
            return
        now = time.monotonic()
        if self._cancel_seen_at is None:
            self._cancel_seen_at = now
        if now - self._cancel_seen_at < self._settings.cancel_grace_seconds or self._closing.is_set():
            return
        with self._database.session() as session:
            grace_seconds = self._settings.cancel_grace_seconds
            progress.cancel_killed_job(session, self._lease, at=utc_now(), after_seconds=grace_seconds)
        log.warning("job.terminated", job=self._lease.job_id, attempt=self._lease.attempt)
        kill_process_tree()

    def _end_after_lost_lease(self) -> None:
        """Kill the process after a lost lease; a separate thread, since the beat may hang in the database."""
        lost_at: float | None = None
        while not self._closing.wait(min(LEASE_CHECK_SECONDS, self._settings.heartbeat_seconds)):
            now = time.monotonic()
            if now - self._renewed_at > self._settings.lease_seconds:
                self.lost = True
            if self.lost:
                lost_at = now if lost_at is None else lost_at
                if now - lost_at > LOST_GRACE_SECONDS:
                    log.warning("attempt.ended", job=self._lease.job_id, reason="it continued without its lease")
                    kill_process_tree()


def kill_process_tree() -> None:
    """Kill this process and its descendants at once."""
    for child in psutil.Process().children(recursive=True):
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
