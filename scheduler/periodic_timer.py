"""What is due from time to time, by a clock that may jump."""

from datetime import datetime, timedelta


class PeriodicTimer:
    """Due at once, and again when `every` has passed; a clock that was put back makes it due, too."""

    def __init__(self, every: timedelta) -> None:
        self._every = every
        self._last: datetime | None = None

    def due(self, at: datetime) -> bool:
        """Whether it is due; if so, its time begins anew."""
        if self._last is not None and self._last <= at < self._last + self._every:
            return False
        self._last = at
        return True
