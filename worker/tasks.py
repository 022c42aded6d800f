"""The Celery tasks. Importing this module does not load torch."""

import os
from typing import Any

import structlog
from celery.signals import celeryd_after_setup, setup_logging, worker_process_init, worker_process_shutdown

from runtime.logs import configure_logs
from runtime.settings import get_settings
from runtime.tracing import configure_tracing, flush_traces, stop_tracing
from store.repositories.token_statistics import CountRequest
from worker.app import COUNT_TOKENS_TASK, MEASURE_MODELS_TASK, PREPARE_TASK, TRAIN_TASK, app
from worker.database_retry import retry_while_database_down
from worker.device import device_name
from worker.training.claim import train_job


@worker_process_init.connect(weak=False)
def configure_child_process(**_: object) -> None:
    """Configure the logs and traces of a job's process, and cache the device name that a claim needs."""
    configure_logs(get_settings())
    configure_tracing(get_settings(), "worker")
    device_name()


@worker_process_shutdown.connect(weak=False)
def stop_child_tracing(**_: object) -> None:
    stop_tracing()


@setup_logging.connect(weak=False)
def disable_celery_logging(**_: object) -> None:
    """Keep Celery from configuring logging: a receiver of this signal is enough."""


@celeryd_after_setup.connect(weak=False)
def unset_fork_log_level(**_: object) -> None:
    """Remove the level that Celery sets, with which a child logs in another format until it is configured."""
    os.environ.pop("_MP_FORK_LOGLEVEL_", None)


@app.task(name=PREPARE_TASK)
def prepare(job_id: str) -> None:
    """Validate a submitted job against its model and dataset, estimate it, and queue it."""
    from worker.preparation.prepare import prepare_job

    with structlog.contextvars.bound_contextvars(job=job_id):
        retry_while_database_down(lambda: prepare_job(job_id), timeout_seconds=get_settings().lease_seconds)
    flush_traces()


@app.task(name=MEASURE_MODELS_TASK)
def measure_models() -> None:
    """Measure the catalogue's models that have not been measured yet."""
    from worker.preparation.prepare import measure_catalogue

    retry_while_database_down(measure_catalogue, timeout_seconds=get_settings().lease_seconds)


@app.task(name=COUNT_TOKENS_TASK)
def count_tokens(dataset_id: str, model: str, prompt_format: str = "plain", train_on: str = "last") -> None:
    """Count the tokens of a dataset's rows for a model, if they are not stored.

    A message of an earlier version has only the first two values, and meant the last turns.
    """
    from worker.preparation.token_counts import count_dataset_tokens

    count_dataset_tokens(CountRequest(dataset_id, model, prompt_format, train_on))


@app.task(name=TRAIN_TASK, bind=True)
def train(self: Any, job_id: str) -> None:
    """Run one attempt of a job, if it can be claimed."""
    with structlog.contextvars.bound_contextvars(job=job_id):
        train_job(job_id, task_id=self.request.id)
    flush_traces()
