"""Keeps the loss of every step, and writes them down together, at most once a second."""

import math
import time

import structlog
from sqlalchemy.orm import Session

from greencore.clock import utc_now
from store import progress
from store.progress import StepLoss
from worker.journal import Journal
from worker.outages import DATABASE_AWAY

log = structlog.get_logger()

REPORT_SECONDS = 1.0
# After a report that failed; training goes on meanwhile.
RETRY_SECONDS = 5.0


class StepLog:
    """The steps of one attempt that are not in the database yet. A loss that is not finite is kept for none."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._taken: list[StepLoss] = []
        self._newest: tuple[int, int, float] | None = None  # steps done, steps in all, loss
        self._due = time.monotonic() + REPORT_SECONDS

    def add(self, *, done: int, steps: int, loss: float) -> None:
        """Note a step, and write what is there once it is time; where the database is away, later."""
        self._newest = done, steps, loss
        if math.isfinite(loss):
            self._taken.append(StepLoss(done, utc_now(), loss))
        if time.monotonic() < self._due:
            return
        try:
            self._journal.write_once(self._write)
        except DATABASE_AWAY as error:
            log.warning("progress.delayed", error=str(error.orig))
            self._due = time.monotonic() + RETRY_SECONDS
        else:
            self._written()

    def flush(self) -> None:
        """Write all that is there; the database is waited for."""
        if self._newest is not None:
            self._journal.write(self._write)
            self._written()

    def _write(self, session: Session) -> None:
        assert self._newest is not None
        done, steps, loss = self._newest
        progress.report_step(session, self._journal.lease, steps=steps, steps_done=done, loss=loss, taken=self._taken)

    def _written(self) -> None:
        self._taken, self._newest = [], None
        self._due = time.monotonic() + REPORT_SECONDS
