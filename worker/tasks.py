"""The tasks that messages name. torch is loaded in the process that runs one, not in the worker that waits."""

from typing import Any

from celery.signals import worker_process_init

from store.logs import configure_logs
from store.settings import get_settings
from worker.app import COUNT_TOKENS, MEASURE_MODELS, PREPARE, TRAIN, app
from worker.outages import sit_out
from worker.presence import device_name
from worker.train import train_job


@worker_process_init.connect(weak=False)
def child_started(**_: object) -> None:
    """A spawned process inherits no logging; and what a claim has to know is asked before there is one to make."""
    configure_logs(get_settings())
    device_name()


@app.task(name=PREPARE)
def prepare(job_id: str) -> None:
    """Check a submitted job against its model and data, estimate it, and queue it."""
    from worker.prepare import prepare_job

    sit_out(lambda: prepare_job(job_id), patience_seconds=get_settings().lease_seconds)


@app.task(name=MEASURE_MODELS)
def measure_models() -> None:
    """Measure the catalogue's models that have not been measured yet."""
    from worker.prepare import measure_catalogue

    measure_catalogue()


@app.task(name=COUNT_TOKENS)
def count_tokens(dataset_id: str, model: str) -> None:
    """Count the tokens of a dataset's rows for a model, if that has not been done."""
    from worker.token_counts import count_dataset

    count_dataset(dataset_id, model)


@app.task(name=TRAIN, bind=True)
def train(self: Any, job_id: str) -> None:
    """Run one attempt of a job, if it can be claimed."""
    train_job(job_id, task_id=self.request.id)
