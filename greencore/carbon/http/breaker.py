"""Circuit breaker: decides when a provider that fails or refuses gets the next request."""

from dataclasses import dataclass
from datetime import datetime, timedelta

FAILURES_BEFORE_OPENING = 5
AFTER_FAILURES = timedelta(minutes=1)
LONGEST_AFTER_FAILURES = timedelta(minutes=15)
AFTER_RATE_LIMIT = timedelta(minutes=1)
LONGEST_AFTER_RATE_LIMIT = timedelta(hours=1)
AFTER_REFUSAL = timedelta(minutes=15)
# A longer Retry-After is cut: the provider's clock may be wrong.
LONGEST_RETRY_AFTER = timedelta(hours=24)
SHORTEST_RETRY_AFTER = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class OpenState:
    """Start, end (UTC) and reason of a pause in requests."""

    since: datetime
    until: datetime
    reason: str


class CircuitBreaker:
    """Circuit breaker: closed in normal operation, open after failures, half open once its pause has passed.

    Half open, it lets one request through: success closes it, failure opens it for twice as long. Every `now` is in
    UTC. Not thread-safe: its owner holds a lock.
    """

    def __init__(self) -> None:
        self._open: OpenState | None = None
        self._failures = 0
        self._openings = 0
        self._rate_limits = 0

    def open_state(self, now: datetime) -> OpenState | None:
        """Return the current pause; None where a request may be sent."""
        # A clock that was set back must not prolong the pause.
        if self._open is not None and self._open.since <= now < self._open.until:
            return self._open
        return None

    @property
    def half_open(self) -> bool:
        """Whether the next request closes or reopens the breaker; only valid outside a pause."""
        return self._open is not None

    def record_success(self) -> None:
        """Close the breaker."""
        self._open = None
        self._failures = self._openings = self._rate_limits = 0

    def record_failure(self, now: datetime, reason: str) -> datetime | None:
        """Count a failure; return the end of the pause, None where the breaker stays closed.

        It opens after 5 failures in a row, for 1 minute, doubling to 15 minutes with each further failure.
        """
        self._failures += 1
        if self._failures < FAILURES_BEFORE_OPENING and not self.half_open:
            return None
        self._openings += 1
        return self._open_for(now, _doubled(AFTER_FAILURES, self._openings, LONGEST_AFTER_FAILURES), reason)

    def record_rate_limit(self, now: datetime, reason: str, retry_after: timedelta | None) -> datetime:
        """Open for `retry_after` (1 s to 24 h), else for 1 minute, doubling to 1 hour; return the end of the pause."""
        self._rate_limits += 1
        delay = _doubled(AFTER_RATE_LIMIT, self._rate_limits, LONGEST_AFTER_RATE_LIMIT)
        return self._open_for(now, _bounded_retry_after(retry_after, delay), reason)

    def record_refusal(self, now: datetime, reason: str, retry_after: timedelta | None) -> datetime:
        """Open for `retry_after` (1 s to 24 h), else for 15 minutes; return the end of the pause."""
        return self._open_for(now, _bounded_retry_after(retry_after, AFTER_REFUSAL), reason)

    def _open_for(self, now: datetime, delay: timedelta, reason: str) -> datetime:
        self._open = OpenState(now, now + delay, reason)
        return self._open.until


def _bounded_retry_after(retry_after: timedelta | None, otherwise: timedelta) -> timedelta:
    if retry_after is None:
        return otherwise
    return min(max(retry_after, SHORTEST_RETRY_AFTER), LONGEST_RETRY_AFTER)


def _doubled(first: timedelta, times: int, longest: timedelta) -> timedelta:
    # The exponent is bounded: weeks of failures would overflow a timedelta.
    return min(first * (1 << min(times - 1, 16)), longest)
