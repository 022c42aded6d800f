"""The tasks that messages name. torch is loaded in the process that runs one, not in the worker that waits."""

from celery.signals import worker_process_init

from store.logs import configure_logs
from store.settings import get_settings
from worker.app import COUNT_TOKENS, MEASURE_MODELS, PREPARE, TRAIN, app


@worker_process_init.connect(weak=False)
def child_started(**_: object) -> None:
    """A spawned process inherits no logging."""
    configure_logs(get_settings())


@app.task(name=PREPARE)
def prepare(job_id: str) -> None:
    """Check a submitted job against its model and data, estimate it, and queue it."""
    from worker.prepare import prepare_job

    prepare_job(job_id)


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


@app.task(name=TRAIN)
def train(job_id: str) -> None:
    """Run one attempt of a job, if it can be claimed."""
    from worker.train import train_job

    train_job(job_id)
