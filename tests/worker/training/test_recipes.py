"""Jobs with a recipe of their own: a length in steps, and micro-batches that do not fit into memory."""

from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.jobs import JobRepository
from tests.scheduler.stage import events, read_job
from tests.worker.stage import event_types, queued_job, steps
from worker.training.claim import train_job

FORWARD = LlamaForCausalLM.forward


def fit_at_most(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a step of more rows at once run out of memory."""

    def forward(model: LlamaForCausalLM, *given: Any, **inputs: Any) -> Any:
        ids = inputs["input_ids"]
        if torch.is_grad_enabled() and type(ids) is torch.Tensor and not ids.is_meta and len(ids) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return FORWARD(model, *given, **inputs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", forward)


def test_a_step_that_runs_out_of_memory_is_halved_recorded_and_repeated(
    database: Database, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_at_most(2, monkeypatch)
    job_id = queued_job(database, worker_settings, max_steps=3, epochs=None)
    train_job(job_id, settings=worker_settings)

    job = read_job(database, job_id)
    assert job.status is JobStatus.SUCCEEDED
    assert job.micro_batch_size == 2
    [halved] = [event for event in events(database, job_id) if event.type == "micro_batch.halved"]
    assert halved.data == {"attempt": 1, "before": 4, "after": 2, "step": 1}
    [file] = worker_settings.job_dir(job_id).glob("**/README.md")
    card = file.read_text()
    assert "Recipe: 3 steps; 4 rows a step; learning rate 0.001, linear; adamw" in card
    assert "in the end 2 rows at once" in card


def test_a_second_lack_of_memory_fails_the_job_with_what_would_fit(
    database: Database, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_at_most(1, monkeypatch)
    job_id = queued_job(database, worker_settings)
    train_job(job_id, settings=worker_settings)

    job = read_job(database, job_id)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["field"] == "hyperparameters.micro_batch_size"
    assert "micro_batch_size 1 or less" in job.error["detail"]


def test_an_automatic_micro_batch_is_recorded_with_its_reason(database: Database, worker_settings: Settings) -> None:
    job_id = queued_job(database, worker_settings, micro_batch_size="auto", max_steps=2, epochs=None)
    train_job(job_id, settings=worker_settings)

    assert read_job(database, job_id).micro_batch_size == 4
    [chosen] = [event for event in events(database, job_id) if event.type == "micro_batch.chosen"]
    assert chosen.data["rows"] == 4
    assert "the longest row takes" in chosen.data["reason"]


def test_a_length_in_steps_ends_within_an_epoch_that_is_reported_and_counted(
    database: Database, worker_settings: Settings
) -> None:
    job_id = queued_job(database, worker_settings, max_steps=11, epochs=None)  # 9 an epoch
    train_job(job_id, settings=worker_settings)

    job = read_job(database, job_id)
    assert job.status is JobStatus.SUCCEEDED
    assert (job.steps_done, job.steps, job.epochs_done) == (11, 11, 2)
    assert steps(database, job_id) == list(range(1, 12))
    assert event_types(database, job_id).count("epoch.finished") == 2
    with database.session() as session:
        first, second = JobRepository(session).epochs(job_id)
    assert first.full_flops is not None
    assert second.full_flops == pytest.approx(2 / 9 * first.full_flops, rel=0.3)
    assert second.rho_reached is not None
