"""Celery's consumer, which waits here while Redis refuses writes, and its pool, which reaps processes quickly here."""

import time
from collections.abc import Callable
from typing import Any

import redis
import structlog
from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from runtime.message_broker import connect_redis, describe_refusal, probe_write
from runtime.settings import get_settings

log = structlog.get_logger()

WRITE_PROBE_SECONDS = 2.0
SHUTDOWN_POLL_SECONDS = 0.2
REAP_INTERVAL_SECONDS = 0.2


class WritableBrokerConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Connects once Redis accepts writes, since receiving a message is a write.

    Celery alone takes a refused write for a channel error, reconnects at once, and finally gives up.
    """

    def connect(self) -> Any:
        """Wait without limit until the broker accepts writes, and return a connection to it.

        Raises `celery.exceptions.WorkerShutdown` where the worker is asked to stop meanwhile.
        """
        self._wait_until_writable()
        return super().connect()

    def _wait_until_writable(self) -> None:
        last_reason: str | None = None
        client = connect_redis(get_settings().redis_url)
        try:
            while (reason := _probe_refusal(client)) is not None:
                if reason != last_reason:
                    log.warning("broker.awaited", reason=reason)
                last_reason = reason
                until = time.monotonic() + WRITE_PROBE_SECONDS
                while time.monotonic() < until:
                    maybe_shutdown()
                    time.sleep(SHUTDOWN_POLL_SECONDS)
        finally:
            client.close()
        if last_reason is not None:
            log.info("broker.writable")


def _probe_refusal(client: redis.Redis) -> str | None:
    try:
        probe_write(client)
    except redis.ResponseError as error:
        return describe_refusal(error)
    except redis.RedisError:  # unreachable, which Celery itself waits for
        return None
    return None


class FastReapPool(AsynPool):  # type: ignore[misc]  # Celery has no types
    """Reaps ended processes every 0.2 s.

    Celery is notified by a pipe that closes a moment before the process can be reaped. If it looks within that moment,
    it looks again only with this timer, of 5 s by default, for which the next job would wait.
    """

    @property
    def timers(self) -> dict[Callable[[], object], float]:
        return {self.maintain_pool: REAP_INTERVAL_SECONDS}


class JobPool(TaskPool):  # type: ignore[misc]
    """The pool class that the Celery app names."""

    Pool = FastReapPool
