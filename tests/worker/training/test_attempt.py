"""Attempts on a small model: stopped, resumed, on a full disk, without their files."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from greencore.training.run import TrainingResult
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.leases import LeaseLost, claim
from store.lifecycle.status import JobStatus
from store.repositories.jobs import JobRepository
from store.tables import Job
from tests.greencore.training.test_divergence import HUGE, model_with
from tests.scheduler.stage import events, read_job
from tests.worker.stage import (
    STEPS,
    act_when,
    checkpoint_names,
    claim_as_worker,
    event_types,
    list_file_names,
    queued_job,
    requeue_as_scheduler,
    set_status,
    sigterm,
    steps,
    weights,
)
from tests.worker.training.test_registered_checkpoints import no_room
from worker.training.claim import train_job
from worker.training.heartbeat import LeaseHeartbeat
from worker.training.leased_writer import LeasedWriter
from worker.training.outcome import store_result


def reaches(database: Database, job_id: str, step: int) -> bool:
    return read_job(database, job_id).steps_done >= step


def test_a_claim_needs_no_torch() -> None:
    loaded = "import sys, worker.tasks; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_drained_and_a_damaged_run_end_with_the_weights_of_an_undisturbed_one(
    database: Database, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.training.step_log.REPORT_INTERVAL_SECONDS", 0.0)
    undisturbed = queued_job(database, worker_settings)
    train_job(undisturbed, settings=worker_settings)

    job_id = queued_job(database, worker_settings)
    with act_when(lambda: reaches(database, job_id, 12), sigterm):
        train_job(job_id, settings=worker_settings)
    assert read_job(database, job_id).status is JobStatus.QUEUED
    kept = checkpoint_names(database, job_id)
    assert len(kept) == 2
    newest = max(kept, key=lambda name: int(name.split("-")[1]))
    stopped_after = int(newest.split("-")[1])
    assert 12 <= stopped_after < STEPS
    assert steps(database, job_id) == list(range(1, stopped_after + 1))

    shutil.copytree(worker_settings.job_dir(job_id), worker_settings.data_dir / "copy")
    train_job(job_id, settings=worker_settings)
    assert weights(database, job_id) == weights(database, undisturbed)
    assert steps(database, job_id) == list(range(1, STEPS + 1))
    assert read_job(database, job_id).attempts == 2
    assert list_file_names(worker_settings.job_dir(job_id)) == {
        *checkpoint_names(database, job_id),
        "artifacts",
        "before.json",
        "logits.json",
        "precision.json",
    }

    # Again, with a damaged checkpoint: the run resumes from the epoch before it.
    with database.session() as session:
        job = JobRepository(session).lock(job_id)
        assert job is not None
        job.status = JobStatus.FAILED
    set_status(database, job_id, JobStatus.QUEUED)
    shutil.rmtree(worker_settings.job_dir(job_id) / f"checkpoint-{STEPS}-2")
    train_job(job_id, settings=worker_settings)
    assert "checkpoint.damaged" in event_types(database, job_id)
    assert weights(database, job_id) == weights(database, undisturbed)
    started = [event.data["steps_done"] for event in events(database, job_id) if event.type == "training.started"]
    assert started == [0, stopped_after, 18]


def test_a_job_is_released_at_once_while_its_model_is_loaded(database: Database, worker_settings: Settings) -> None:
    job_id = queued_job(database, worker_settings)
    with act_when(lambda: read_job(database, job_id).status is JobStatus.RUNNING, sigterm):
        train_job(job_id, settings=worker_settings)
    assert read_job(database, job_id).status is JobStatus.QUEUED
    assert "training.started" not in event_types(database, job_id)
    assert not checkpoint_names(database, job_id)


def test_a_sigterm_during_the_claim_releases_the_job(
    database: Database, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = queued_job(database, worker_settings)

    def claimed_as_the_signal_comes(*given: Any, **named: Any) -> Any:
        lease = claim(*given, **named)
        sigterm()
        return lease

    monkeypatch.setattr("worker.training.claim.claim", claimed_as_the_signal_comes)
    train_job(job_id, settings=worker_settings)
    assert read_job(database, job_id).status is JobStatus.QUEUED
    assert "training.started" not in event_types(database, job_id)


def test_a_full_disk_fails_the_run_and_a_retry_succeeds(database: Database, worker_settings: Settings) -> None:
    job_id = queued_job(database, worker_settings)
    with no_room():
        train_job(job_id, settings=worker_settings)
    job = read_job(database, job_id)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["title"] == "The disk is full"
    assert job.error["field"] is None
    assert event_types(database, job_id).count("checkpoint.failed") == 3
    assert list_file_names(worker_settings.job_dir(job_id)) == {"before.json", "logits.json", "precision.json"}
    set_status(database, job_id, JobStatus.QUEUED)
    train_job(job_id, settings=worker_settings)
    assert read_job(database, job_id).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("gone", ["dataset", "model"])
def test_a_missing_file_fails_the_job_with_its_field(
    database: Database, worker_settings: Settings, tmp_path: Path, gone: str
) -> None:
    job_id = queued_job(database, worker_settings)
    settings = worker_settings
    if gone == "dataset":
        settings.dataset_file("rows").unlink()
    else:
        catalogue = tmp_path / "catalogue.toml"
        catalogue.write_text('[small]\nsource = "nowhere"\nlicence = "none"\n')
        settings = settings.model_copy(update={"catalogue": catalogue})
    train_job(job_id, settings=settings)
    job = read_job(database, job_id)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["field"] == gone


def test_a_result_is_never_replaced_by_that_of_a_lost_attempt(database: Database, worker_settings: Settings) -> None:
    job_id = queued_job(database, worker_settings)
    folder = worker_settings.job_dir(job_id)

    def finish(writer: LeasedWriter, text: str) -> None:
        written = folder / f"result-{writer.lease.attempt}"
        written.mkdir(parents=True)
        (written / "model.safetensors").write_text(text)
        result = TrainingResult(True, written, None, None, None, ())
        store_result(writer, worker_settings, read_job(database, job_id), result)

    def writer() -> LeasedWriter:
        lease = claim_as_worker(database, job_id)
        return LeasedWriter(database, lease, LeaseHeartbeat(database, lease, worker_settings), lease_seconds=1.0)

    loser = writer()
    requeue_as_scheduler(database, job_id)
    finish(writer(), "the winner's")
    with pytest.raises(LeaseLost):
        finish(loser, "the loser's")
    assert (folder / "artifacts" / "model.safetensors").read_text() == "the winner's"
    assert read_job(database, job_id).status is JobStatus.SUCCEEDED


@pytest.mark.fault(number=2)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_that_diverges_fails_without_a_field_and_without_a_result(
    database: Database, worker_settings: Settings, tmp_path: Path, method: str
) -> None:
    (tmp_path / "catalogue.toml").write_text('[small]\nsource = "small"\nlicence = "none"\n')
    model_with(tmp_path / "small", HUGE)
    settings = worker_settings.model_copy(update={"catalogue": tmp_path / "catalogue.toml"})
    job_id = queued_job(database, settings, max_length=64, eval_share=0)
    with database.session() as session:
        session.get_one(Job, job_id).method = method
    rows = settings.dataset_file("rows")
    rows.write_text(rows.read_text().replace("w30 ", "w58 "))
    train_job(job_id, settings=settings)

    job = read_job(database, job_id)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["field"] is None
    assert f"the loss of step {job.steps_done + 1} is nan" in job.error["detail"]
    assert not (settings.job_dir(job_id) / "artifacts").exists()


@pytest.mark.fault(number=2)
def test_a_model_with_non_finite_weights_fails_with_the_field_model(
    database: Database, worker_settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "catalogue.toml").write_text('[small]\nsource = "small"\nlicence = "none"\n')
    model_with(tmp_path / "small", float("nan"))
    settings = worker_settings.model_copy(update={"catalogue": tmp_path / "catalogue.toml"})
    job_id = queued_job(database, settings)
    train_job(job_id, settings=settings)
    error = read_job(database, job_id).error
    assert error is not None
    assert error["field"] == "model"
    assert "transformer.wte.weight" in error["detail"]
