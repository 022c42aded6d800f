"""Workers that die or are stopped in the middle of an epoch, as real processes."""

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtime.settings import Settings
from tests.acceptance.conftest import Service, list_worker_children, wait_until, write_small_catalogue
from worker.app import TRAIN_TASK, make_app, send_task, train_queue

ROWS = "\n".join(json.dumps({"prompt": f"w{n % 60} w1 w2 " * 4, "completion": " w7 w8 w9"}) for n in range(240))
HYPERPARAMETERS = {"epochs": 6, "eval_share": 0.02, "max_new_tokens": 4, "learning_rate": 1e-3}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """A catalogue with one model, so small that an epoch takes a few seconds."""
    return settings.model_copy(update={"catalogue": write_small_catalogue(tmp_path)})


def submit(service: Service) -> str:
    return service.submit(
        model="small",
        dataset=service.upload(ROWS),
        zone="X",
        policy={"kind": "constant", "rho": 0.6},
        hyperparameters=HYPERPARAMETERS,
    )


def wait_for_epoch(service: Service, job_id: str, number: int) -> None:
    """Wait until an epoch is under way, some steps into it."""

    def under_way() -> bool:
        progress: dict[str, Any] = service.job(job_id)["progress"]
        return bool(progress["epochs_done"] >= number - 1 and progress["steps_done"] > (number - 1) * 59 + 5)

    wait_until(f"epoch {number} is under way", under_way)


def test_a_job_survives_sigkill_and_drain_and_runs_once_at_a_time(service: Service) -> None:
    service.start("scheduler")
    service.start("worker", "prepare")
    worker = service.start("worker", "train")
    job_id = submit(service)
    wait_for_epoch(service, job_id, 2)

    # A second message for a running job changes nothing.
    send_task(make_app(service.settings), TRAIN_TASK, job_id, queue=train_queue("X"))

    # SIGKILL of worker and training process in mid-epoch: the lease runs out, and the next worker goes on.
    for process in [*list_worker_children(worker), psutil.Process(worker.pid)]:
        process.kill()
    worker.wait()
    wait_until("the job is taken back", lambda: service.job(job_id)["status"] == "queued")
    assert any("fell silent" in reason for reason in service.event_reasons(job_id))
    second = service.start("worker", "train")
    wait_for_epoch(service, job_id, 4)

    # SIGTERM: the worker hands the job back and ends by itself.
    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == 0
    assert service.job(job_id)["status"] == "queued"
    service.start("worker", "train")
    service.wait_for(job_id, "succeeded")

    types = service.event_types(job_id)
    assert types.count("job.running") == 3
    starts = [event["data"]["epochs_done"] for event in service.events(job_id) if event["type"] == "training.started"]
    assert starts[0] == 0
    assert 0 < starts[1] < starts[2] < 6  # each attempt went on from a checkpoint
    epochs = service.get(f"/jobs/{job_id}/epochs")["data"]
    assert sorted(row["number"] for row in epochs) == [1, 2, 3, 4, 5, 6]
    assert all(row["finished_at"] for row in epochs)
    assert len(list(service.settings.job_dir(job_id).glob("checkpoint-*"))) == 2

    # Lost energy is no saving, and no gate has moved anything.
    wait_until("it is accounted for", lambda: service.job(job_id)["counterfactuals"] is not None)
    job = service.job(job_id)
    full = job["counterfactuals"]["full_now"]["emissions_gco2e"]
    lines = [name for name in job if name.endswith("_saving")]
    assert job["lost_work_saving"] < 0 == job["moved_in_time_saving"] == job["owner_pause_saving"]
    assert sum(job[name] for name in lines) == pytest.approx((full - job["emissions_gco2e"]) / full)


def test_a_job_whose_dataset_is_missing_fails_with_the_field(service: Service) -> None:
    job_id = submit(service)
    for file in service.settings.datasets_dir.glob("*.jsonl"):
        file.unlink()
    service.start("scheduler")
    service.start("worker", "prepare")
    job = service.wait_for(job_id, "failed")
    assert job["error"]["field"] == "dataset"
