"""The Celery app: how a job's id reaches a worker. Light: it loads no task and no torch."""

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
# How a worker makes a job's process. Not everywhere do the system's own libraries outlive a fork.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"


def train_queue(zone: str) -> str:
    """The queue of a zone's training workers."""
    return f"train.{zone}"


def make_app(settings: Settings) -> Celery:
    """A Celery app on the broker of `settings`.

    A message is only a hint, acknowledged at once: the row in the database says what is to be done, and a lease who
    does it. Each job runs in a process of its own, one at a time: only its end gives all of a GPU's memory back.
    """
    app = Celery("greentune", broker=celery_url(settings.redis_url), include=["worker.tasks"])
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,
        worker_consumer="worker.consumer:WritableBrokerConsumer",
        worker_pool="worker.pool:JobPool",
        worker_pool_start_method=START_METHOD,
        worker_concurrency=1,
        worker_max_tasks_per_child=1,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker waits for its broker for as long as it takes
        broker_channel_error_retry=True,  # what Redis refuses while it is read-only or full
        broker_transport_options={
            "socket_connect_timeout": 3,
            "socket_timeout": 10,
            "retry_on_timeout": True,
            # A sender is told at once that the broker is away; a worker's own connection is retried all the same.
            "max_retries": 1,
            "interval_start": 0,
        },
    )
    return app


app = make_app(get_settings())


def send_task(celery: Celery, task: str, *args: Any, queue: str) -> None:
    """Send a message now. Raises `BrokerDown`, a read-only Redis included: the caller's next tick is the retry."""
    with translate_redis_errors():
        celery.send_task(task, args=args, queue=queue, retry=False)


@contextmanager
def translate_redis_errors() -> Iterator[None]:
    """Raise `BrokerDown` for what Redis refuses, which Celery takes for a fault of the message."""
    try:
        yield
    except redis.RedisError as error:
        raise BrokerDown(describe_refusal(error)) from error
