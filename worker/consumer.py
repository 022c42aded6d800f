"""Celery's consumer, which waits while Redis takes no writes: taking a message is a write, too."""

import time
from typing import Any

import redis
import structlog
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from runtime.message_broker import connect_redis, describe_refusal, probe_write
from runtime.settings import get_settings

log = structlog.get_logger()

WRITE_PROBE_SECONDS = 2.0
SHUTDOWN_POLL_SECONDS = 0.2


class WritableBrokerConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Connects once Redis takes writes.

    Celery itself takes a refused write for a fault of the channel, connects again at once, and gives up in the end.
    """

    def connect(self) -> Any:
        """Return a connection to a broker that takes writes, after however long that takes.

        Raises `celery.exceptions.WorkerShutdown` where the worker is asked to stop meanwhile.
        """
        self._wait_until_writable()
        return super().connect()

    def _wait_until_writable(self) -> None:
        said: str | None = None
        client = connect_redis(get_settings().redis_url)
        try:
            while (reason := _probe_refusal(client)) is not None:
                if reason != said:
                    log.warning("broker.awaited", reason=reason)
                said = reason
                until = time.monotonic() + WRITE_PROBE_SECONDS
                while time.monotonic() < until:
                    maybe_shutdown()
                    time.sleep(SHUTDOWN_POLL_SECONDS)
        finally:
            client.close()
        if said is not None:
            log.info("broker.writable")


def _probe_refusal(client: redis.Redis) -> str | None:
    try:
        probe_write(client)
    except redis.ResponseError as error:
        return describe_refusal(error)
    except redis.RedisError:  # it is away, which Celery itself waits for
        return None
    return None
