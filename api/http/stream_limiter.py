"""Limit on open event streams, each of which uses memory and a connection until its client leaves."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from api.http.problems import Problem

RETRY_AFTER = {"Retry-After": "30"}


class StreamLimiter:
    """Counts the open streams of one API process, in total and by owner; for use in its event loop only."""

    def __init__(self, *, total: int, per_owner: int) -> None:
        self._total, self._per_owner = total, per_owner
        self._open_by_owner: Counter[str] = Counter()

    @property
    def open_streams(self) -> int:
        """Number of open streams."""
        return self._open_by_owner.total()

    @contextmanager
    def acquire(self, owner: str) -> Iterator[None]:
        """Hold a slot in the context. Raises the 429 if the owner has too many, and the 503 if all are in use."""
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
