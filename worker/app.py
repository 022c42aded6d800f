"""The Celery app that sends job ids to workers. Loads neither tasks nor torch."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError as BrokerDown

from runtime.message_broker import celery_url, describe_refusal
from runtime.settings import Settings, get_settings

PREPARE_QUEUE = "prepare"
PREPARE_TASK = "worker.preparation.prepare"
MEASURE_MODELS_TASK = "worker.measure_models"
COUNT_TOKENS_TASK = "worker.count_tokens"
TRAIN_TASK = "worker.training.claim"
# How a worker creates a job's process: not every system's libraries survive a fork.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"


def train_queue(zone: str) -> str:
    """Return the name of the queue of a zone's training workers."""
    return f"train.{zone}"


def worker_queue(worker_id: str) -> str:
    """Return the name of one training worker's own queue, for jobs that not every device of its zone can run."""
    return f"train.{worker_id}"


def make_app(settings: Settings) -> Celery:
    """Create a Celery app on the broker of `settings`.

    A message is only a hint, acknowledged at once: the row in the database defines the work, and a lease its worker.
    Each job runs in a separate process, as many at a time as the worker has devices: only a process's end frees all of
    a GPU's memory.
    """
    app = Celery("greentune", broker=celery_url(settings.redis_url), include=["worker.tasks"])
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,
        worker_consumer="worker.celery_overrides:WritableBrokerConsumer",
        worker_pool="worker.celery_overrides:JobPool",
        worker_pool_start_method=START_METHOD,
        worker_concurrency=1,
        worker_max_tasks_per_child=1,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker waits for its broker without limit
        broker_channel_error_retry=True,  # Redis refuses writes while it is read-only or full
        broker_transport_options={
            "socket_connect_timeout": 3,
            "socket_timeout": 10,
            "retry_on_timeout": True,
            # A sender learns at once that the broker is unreachable; a worker's own connection is retried nevertheless.
            "max_retries": 1,
            "interval_start": 0,
        },
    )
    return app


app = make_app(get_settings())


def send_task(celery: Celery, task: str, *args: Any, queue: str) -> None:
    """Send a message without retries. Raises `BrokerDown`, also where Redis is read-only."""
    with translate_redis_errors():
        celery.send_task(task, args=args, queue=queue, retry=False)


@contextmanager
def translate_redis_errors() -> Iterator[None]:
    """Raise `BrokerDown` for Redis errors, which Celery takes for faults of the message."""
    try:
        yield
    except redis.RedisError as error:
        raise BrokerDown(describe_refusal(error)) from error
