"""The broker as the scheduler sees it: it takes hints for workers, may be away, and may forget all of them."""

from typing import Any

import redis
import structlog
from celery import Celery
from kombu.exceptions import OperationalError as BrokerDown

from store.settings import Settings
from worker.app import make_app, send

log = structlog.get_logger()

# Whoever finds it gone knows that the broker was emptied, and every message with it.
MARK = "greentune:messages"
TIMEOUT_SECONDS = 3.0


class Broker:
    """Sends messages to workers, and notices when those that were sent are gone."""

    def __init__(self, settings: Settings) -> None:
        self.celery: Celery = make_app(settings)
        self._redis = redis.Redis.from_url(
            settings.redis_url, socket_connect_timeout=TIMEOUT_SECONDS, socket_timeout=TIMEOUT_SECONDS
        )
        self._answers = True

    def answers(self) -> bool:
        """Whether the broker can be reached now."""
        try:
            self._redis.ping()
        except redis.RedisError as error:
            if self._answers:
                log.warning("broker.unreachable", error=str(error))
            self._answers = False
            return False
        if not self._answers:
            log.info("broker.reachable")
        self._answers = True
        return True

    def was_emptied(self) -> bool:
        """Whether the mark is gone. Raises `BrokerDown`."""
        try:
            return not self._redis.exists(MARK)
        except redis.RedisError as error:
            raise BrokerDown(str(error)) from error

    def mark(self) -> None:
        """Leave the mark that `was_emptied` looks for. Raises `BrokerDown`."""
        try:
            self._redis.set(MARK, 1)
        except redis.RedisError as error:
            raise BrokerDown(str(error)) from error

    def send(self, task: str, *args: Any, queue: str) -> None:
        """Send a message now. Raises `BrokerDown`."""
        send(self.celery, task, *args, queue=queue)

    def terminate(self, task_id: str) -> None:
        """Have whichever worker runs this message kill the process that does. Raises `BrokerDown`."""
        self.celery.control.revoke(task_id, terminate=True, signal="SIGKILL")

    def close(self) -> None:
        self.celery.close()
        self._redis.close()
