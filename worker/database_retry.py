"""Retries of database work while the database is unreachable."""

from collections.abc import Callable
from typing import TypeVar

import structlog
import tenacity
from sqlalchemy.exc import InterfaceError, OperationalError

log = structlog.get_logger()

# Connection refused, lost, timed out or shut down: not a fault of the work itself.
TRANSIENT_DATABASE_ERRORS = (OperationalError, InterfaceError)
# A worker's statements take milliseconds: one that hangs this long is retried.
STATEMENT_TIMEOUT_SECONDS = 15.0

T = TypeVar("T")


def retry_while_database_down(
    work: Callable[[], T], *, timeout_seconds: float, should_stop: Callable[[], bool] = lambda: False
) -> T:
    """Return the result of `work`, retried with exponential backoff while the database is unreachable.

    Raises the last database error once `timeout_seconds` have passed, or `should_stop` is true.
    """
    timed_out = tenacity.stop_after_delay(timeout_seconds)
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TRANSIENT_DATABASE_ERRORS),
        stop=lambda state: timed_out(state) or should_stop(),
        wait=tenacity.wait_exponential(0.1, max=2.0),
        before_sleep=_log_outage,
        reraise=True,
    )
    return retrying(work)


def _log_outage(state: tenacity.RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    log.warning("database.away", error=str(getattr(error, "orig", error)))
