"""Worker readiness by Celery's ping, since a worker listens on no port. Apart: it alone loads Celery into the CLI."""

import socket

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from runtime.message_broker import celery_url

PING_SECONDS = 0.5


def ping_worker(role: str, redis_url: str) -> bool:
    """Return whether a worker of this role (`prepare` or `train`) on this machine answers the broker."""
    with Celery(broker=celery_url(redis_url), set_as_current=False) as celery:
        try:
            answers = celery.control.ping(timeout=PING_SECONDS) or []
        except (OperationalError, RedisError):
            return False
    names = [name for answer in answers for name in answer]
    return any(name.startswith(f"{role}-") and name.endswith(f"@{socket.gethostname()}") for name in names)
