"""A database that is away for a while: what says so, and waiting it out."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

log = structlog.get_logger()

# Refused, broken off, timed out or shut down: none of it says that the work itself is at fault.
TRANSIENT_DATABASE_ERRORS = (OperationalError, InterfaceError)
# What a worker asks takes milliseconds: a statement that hangs for so long is asked again.
STATEMENT_TIMEOUT_SECONDS = 15.0
FIRST_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 2.0

T = TypeVar("T")


def retry_while_database_down(
    work: Callable[[], T], *, timeout_seconds: float, should_stop: Callable[[], bool] = lambda: False
) -> T:
    """Do some work, again and again while the database is away, and give what it gives.

    Raises what the database raised last once `timeout_seconds` have passed, or `should_stop` says so.
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
