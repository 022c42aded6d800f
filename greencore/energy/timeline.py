"""Stamps intervals with the time of day, though their lengths go by the monotonic clock."""

from collections.abc import Callable
from datetime import datetime, timedelta

from greencore.clock import Clock

CLOCK_JUMP_SECONDS = 1.0
"""A difference between the two clocks that is no correction of their rates any more."""


class Timeline:
    """Times of day (UTC) that go on with the machine's monotonic clock, and follow a leap of the wall clock.

    The monotonic clock does not count what a machine was suspended for, so that neither suspension nor a wall clock
    that is set makes an interval longer or shorter. After a leap the times go on from the new time of day, but never
    from before a time that was given out: where the wall clock was set back, they run ahead of it.
    """

    def __init__(self, clock: Clock, monotonic: Callable[[], float]) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._since = monotonic()
        self._start = clock()
        self._difference = self._difference_at(self._start, self._since)

    def now(self) -> tuple[datetime, float]:
        """The time of day that the monotonic clock has reached, and its seconds."""
        seconds = self._monotonic()
        return self.at(seconds), seconds

    def at(self, seconds: float) -> datetime:
        """The time of day at a second of the monotonic clock that is no earlier than the last leap."""
        return self._start + timedelta(seconds=seconds - self._since)

    def has_jumped(self) -> bool:
        """Whether the wall clock has leapt since the last leap that was followed."""
        return self._jumped(self._clock(), self._monotonic())

    def follow_jump(self, seconds: float) -> None:
        """Where the wall clock has leapt, go on from it from a second of the monotonic clock on, but never go back."""
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
