"""The scheduler's side of the message broker, which may be unreachable or lose all of its messages."""

from typing import Any

import redis
import structlog
from celery import Celery

from runtime.message_broker import connect_redis, describe_refusal, probe_write
from runtime.settings import Settings
from worker.app import make_app, send_task, translate_redis_errors

log = structlog.get_logger()

# Where this key is missing, the broker was emptied, and every message with it.
MARKER_KEY = "greentune:messages"


class Broker:
    """Sends messages to workers, and detects that the broker has lost those that were sent."""

    def __init__(self, settings: Settings) -> None:
        self.celery: Celery = make_app(settings)
        self._redis = connect_redis(settings.redis_url)
        self._available = True

    def is_available(self) -> bool:
        """Whether the broker accepts writes now; a change is logged."""
        try:
            probe_write(self._redis)
        except redis.RedisError as error:
            if self._available:
                log.warning("broker.unreachable", reason=describe_refusal(error), error=str(error))
            self._available = False
            return False
        if not self._available:
            log.info("broker.reachable")
        self._available = True
        return True

    def was_emptied(self) -> bool:
        """Whether the marker of `set_marker` is missing. Raises `BrokerDown`."""
        with translate_redis_errors():
            return not self._redis.exists(MARKER_KEY)

    def set_marker(self) -> None:
        """Set the marker that `was_emptied` checks. Raises `BrokerDown`."""
        with translate_redis_errors():
            self._redis.set(MARKER_KEY, 1)

    def send(self, task: str, *args: Any, queue: str) -> None:
        """Send a message now. Raises `BrokerDown`."""
        send_task(self.celery, task, *args, queue=queue)

    def terminate(self, task_id: str) -> None:
        """Tell the worker that runs this task to kill its process. Raises `BrokerDown`."""
        with translate_redis_errors():
            self.celery.control.revoke(task_id, terminate=True, signal="SIGKILL")

    def close(self) -> None:
        self.celery.close()
        self._redis.close()
