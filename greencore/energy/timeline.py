"""Conversion of monotonic seconds to times of day, which follows jumps of the wall clock."""

from collections.abc import Callable
from datetime import datetime, timedelta

from greencore.clock import Clock

CLOCK_JUMP_SECONDS = 1.0
"""A larger change of the difference between the clocks is a jump, not a rate correction."""


class Timeline:
    """Times of day (UTC) that advance with the machine's monotonic clock and follow jumps of the wall clock.

    The monotonic clock does not count suspended time, so neither suspension nor setting the wall clock changes the
    length of an interval. After a jump the times continue from the new time of day, but never before a time already
    returned: where the wall clock was set back, they run ahead of it.
    """

    def __init__(self, clock: Clock, monotonic: Callable[[], float]) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._since = monotonic()
        self._start = clock()
        self._difference = self._difference_at(self._start, self._since)

    def now(self) -> tuple[datetime, float]:
        """Return the current time of day and the monotonic clock's seconds."""
        seconds = self._monotonic()
        return self.at(seconds), seconds

    def at(self, seconds: float) -> datetime:
        """Return the time of day at monotonic `seconds`, which are not before the last jump."""
        return self._start + timedelta(seconds=seconds - self._since)

    def has_jumped(self) -> bool:
        """Return whether the wall clock has jumped since the last `follow_jump`."""
        return self._jumped(self._clock(), self._monotonic())

    def follow_jump(self, seconds: float) -> None:
        """Where the wall clock has jumped, follow it from monotonic `seconds` on, but never backwards."""
        wall, now = self._clock(), self._monotonic()
        if self._jumped(wall, now):
            self._start = max(self.at(seconds), wall - timedelta(seconds=now - seconds))
            self._since = seconds
            self._difference = self._difference_at(wall, now)

    def _jumped(self, wall: datetime, seconds: float) -> bool:
        return abs(self._difference_at(wall, seconds) - self._difference) > CLOCK_JUMP_SECONDS

    @staticmethod
    def _difference_at(wall: datetime, seconds: float) -> float:
        return wall.timestamp() - seconds
