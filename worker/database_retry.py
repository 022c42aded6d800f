"""Retries of database work while the database is unreachable."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

log = structlog.get_logger()

# Connection refused, lost, timed out or shut down: not a fault of the work itself.
TRANSIENT_DATABASE_ERRORS = (OperationalError, InterfaceError)
# A worker's statements take milliseconds: one that hangs this long is retried.
STATEMENT_TIMEOUT_SECONDS = 15.0
FIRST_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 2.0

T = TypeVar("T")


def retry_while_database_down(
    work: Callable[[], T], *, timeout_seconds: float, should_stop: Callable[[], bool] = lambda: False
) -> T:
    """Return the result of `work`, retried with exponential backoff while the database is unreachable.

    Raises the last database error once `timeout_seconds` have passed, or `should_stop` is true.
    """
    deadline, pause = time.monotonic() + timeout_seconds, FIRST_RETRY_SECONDS
    while True:
        try:
            return work()
        except TRANSIENT_DATABASE_ERRORS as error:
            if time.monotonic() > deadline or should_stop():
                raise
            log.warning("database.away", error=str(error.orig))
        time.sleep(pause)
        pause = min(2 * pause, MAX_RETRY_SECONDS)
