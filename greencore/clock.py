"""The clock type of every component that reads the time, so that tests can set it; the real clock, and UTC times."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]

HOUR = timedelta(hours=1)


def utc_now() -> datetime:
    """Return the current time, timezone-aware, in UTC."""
    return datetime.now(UTC)


def parse_utc(text: str) -> datetime:
    """Parse an ISO 8601 time and convert it to UTC; without an offset it is in UTC. Raises ValueError."""
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.utcoffset() is None else time.astimezone(UTC)


def whole_hour(time: datetime) -> datetime:
    """Return the start of the hour that contains `time`."""
    return time.replace(minute=0, second=0, microsecond=0)
