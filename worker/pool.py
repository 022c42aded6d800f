"""Celery's pool of processes, in which the next process is there as soon as the last has ended."""

from collections.abc import Callable

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool

REAP_INTERVAL_SECONDS = 0.2


class FastReapPool(AsynPool):  # type: ignore[misc]  # Celery has no types
    """Looks often whether a process has ended.

    Celery is told by a pipe that closes a moment before the process itself can be reaped. Where it looks within that
    moment it finds nothing, and looks again only with this timer, of 5 s: so long would the next job wait.
    """

    @property
    def timers(self) -> dict[Callable[[], object], float]:
        return {self.maintain_pool: REAP_INTERVAL_SECONDS}


class JobPool(TaskPool):  # type: ignore[misc]
    """What the Celery app takes for its pool."""

    Pool = FastReapPool
