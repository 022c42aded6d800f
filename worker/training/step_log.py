"""Buffers the loss of every step, and writes them in batches, at most once a second."""

import math
import time

import structlog
from sqlalchemy.orm import Session

from greencore.clock import utc_now
from planning.eta import compute_running_eta, update_eta
from store.lifecycle import progress
from store.lifecycle.progress import StepLoss
from worker.database_retry import TRANSIENT_DATABASE_ERRORS
from worker.training.leased_writer import LeasedWriter

log = structlog.get_logger()

REPORT_INTERVAL_SECONDS = 1.0
# After a failed report; training goes on meanwhile.
RETRY_SECONDS = 5.0


class StepLog:
    """The steps of one attempt that are not stored yet; losses that are not finite are left out."""

    def __init__(self, writer: LeasedWriter) -> None:
        self._writer = writer
        self._pending: list[StepLoss] = []
        self._newest: tuple[int, int, float] | None = None  # steps done, steps in all, loss
        self._due = time.monotonic() + REPORT_INTERVAL_SECONDS

    def add(self, *, done: int, steps: int, loss: float) -> None:
        """Add a step, and write the pending ones if due; retried later where the database is unreachable."""
        self._newest = done, steps, loss
        if math.isfinite(loss):
            self._pending.append(StepLoss(done, utc_now(), loss))
        if time.monotonic() < self._due:
            return
        try:
            self._writer.run_in_transaction_once(self._write)
        except TRANSIENT_DATABASE_ERRORS as error:
            log.warning("progress.delayed", error=str(error.orig))
            self._due = time.monotonic() + RETRY_SECONDS
        else:
            self._clear_pending()

    def flush(self) -> None:
        """Write all pending steps, waiting for the database."""
        if self._newest is not None:
            self._writer.run_in_transaction(self._write)
            self._clear_pending()

    def _write(self, session: Session) -> None:
        assert self._newest is not None
        done, steps, loss = self._newest
        taken = self._pending
        job = progress.report_step(session, self._writer.lease, steps=steps, steps_done=done, loss=loss, taken=taken)
        if taken:
            update_eta(job, compute_running_eta(session, job, at=taken[-1].at))

    def _clear_pending(self) -> None:
        self._pending, self._newest = [], None
        self._due = time.monotonic() + REPORT_INTERVAL_SECONDS
