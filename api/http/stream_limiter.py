"""How many event streams may be open: each costs memory and a connection for as long as its client likes."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from api.http.problems import Problem

RETRY_AFTER = {"Retry-After": "30"}


class StreamLimiter:
    """Counts the streams of one API process, in all and by owner; for use in its event loop alone."""

    def __init__(self, *, total: int, per_owner: int) -> None:
        self._total, self._per_owner = total, per_owner
        self._open_by_owner: Counter[str] = Counter()

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return self._open_by_owner.total()

    @contextmanager
    def acquire(self, owner: str) -> Iterator[None]:
        """Hold a seat until this is left. Raises the 429 of an owner who has too many, and the 503 where all are."""
        if self._open_by_owner[owner] >= self._per_owner:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self._per_owner} event streams of {owner!r} are open, all that one owner may have: close one first",
                headers=RETRY_AFTER,
            )
        if self._open_by_owner.total() >= self._total:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self._total} event streams are open, all that this process takes: try again, or ask without "
                "`Accept: text/event-stream`",
                headers=RETRY_AFTER,
            )
        self._open_by_owner[owner] += 1
        try:
            yield
        finally:
            self._open_by_owner[owner] -= 1
            if not self._open_by_owner[owner]:
                del self._open_by_owner[owner]
