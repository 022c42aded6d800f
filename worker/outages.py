"""A database that is away for a while: what says so, and waiting it out."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

log = structlog.get_logger()

# Refused, broken off, timed out or shut down: none of it says that the work itself is at fault.
DATABASE_AWAY = (OperationalError, InterfaceError)
# What a worker asks takes milliseconds: a statement that hangs for so long is asked again.
STATEMENT_SECONDS = 15.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0

Found = TypeVar("Found")


def sit_out(
    work: Callable[[], Found], *, patience_seconds: float, given_up: Callable[[], bool] = lambda: False
) -> Found:
    """Do some work, again and again while the database is away, and give what it gives.

    Raises what the database raised last once `patience_seconds` have passed, or `given_up` says so.
    """
    deadline, pause = time.monotonic() + patience_seconds, FIRST_PAUSE_SECONDS
    while True:
        try:
            return work()
        except DATABASE_AWAY as error:
            if time.monotonic() > deadline or given_up():
                raise
            log.warning("database.away", error=str(error.orig))
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
