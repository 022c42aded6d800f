"""Evaluations of a job during training, as its rows, its best checkpoint and its energy have them."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import func, select

from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from store.tables import Checkpoint, EnergyInterval, Epoch, Evaluation, Job
from tests.scheduler.stage import add_dataset, events, read_job
from tests.worker.stage import act_when, event_types, queued_job, sigterm, weights
from worker.training.claim import train_job

# The loss of these rises at first, as what is learned of the job's rows is wrong for them.
VALIDATION = "\n".join(json.dumps({"prompt": f"w{n} w2", "completion": " w30 w31"}) for n in range(12))
EARLY: dict[str, Any] = {"eval_every": 2, "eval_unit": "steps", "early_stopping": {"patience": 2}, "keep": "best"}


def queue_with_validation(database: Database, settings: Settings, **hyperparameters: Any) -> str:
    job_id = queued_job(database, settings, eval_share=0.0, learning_rate=1e-2, **hyperparameters)
    settings.dataset_file("validation").write_text(VALIDATION)
    validation = add_dataset(database, {"rows": 12, "blob": "validation"})
    with database.session() as session:
        session.get_one(Job, job_id).validation_dataset_id = validation
    return job_id


def evaluations(database: Database, job_id: str) -> Sequence[Evaluation]:
    with database.session() as session:
        query = select(Evaluation).where(Evaluation.job_id == job_id).order_by(Evaluation.step)
        return session.scalars(query).all()


@pytest.fixture
def stopped_early(database: Database, worker_settings: Settings) -> str:
    job_id = queue_with_validation(database, worker_settings, **EARLY)
    train_job(job_id, settings=worker_settings)
    return job_id


def test_a_job_that_stops_early_succeeds_with_its_best_weights_and_the_reason(
    database: Database, stopped_early: str
) -> None:
    job, found = read_job(database, stopped_early), evaluations(database, stopped_early)

    assert job.status is JobStatus.SUCCEEDED, job.error
    best = min(found, key=lambda row: row.loss)
    assert job.best == {"step": best.step, "epoch": best.epoch, "loss": best.loss}
    assert best.step == found[-3].step  # its patience is two
    assert job.steps_done == found[-1].step < (job.steps or 0)
    assert job.reason is not None
    assert job.reason.startswith(f"stopped early after step {job.steps_done}: ")
    [stop] = [event for event in events(database, stopped_early) if event.type == "training.stopped_early"]
    assert (stop.data["step"], stop.data["reason"]) == (job.steps_done, job.reason)

    assert job.evaluation is not None
    assert job.evaluation["step"] == best.step
    assert job.evaluation["eval_loss"]["after"] == best.loss
    assert job.evaluation["token_accuracy"]["after"] == best.accuracy
    with database.session() as session:
        kept = session.scalars(select(Checkpoint).where(Checkpoint.job_id == stopped_early, Checkpoint.best)).all()
        epochs = session.scalars(select(Epoch).where(Epoch.job_id == stopped_early).order_by(Epoch.number)).all()
    assert [row.step for row in kept] == [best.step]
    assert all(epoch.finished_at is not None for epoch in epochs)
    assert job.epochs_done == len(epochs)


def test_the_energy_of_evaluations_is_marked_and_part_of_the_total(database: Database, stopped_early: str) -> None:
    job, found = read_job(database, stopped_early), evaluations(database, stopped_early)
    with database.session() as session:
        total = select(func.sum(EnergyInterval.energy_kwh)).where(EnergyInterval.job_id == job.id)
        whole, marked = session.scalar(total), session.scalar(total.where(EnergyInterval.evaluation))
        outside = session.scalar(total.where(EnergyInterval.evaluation, EnergyInterval.epoch == 0))

    assert whole == pytest.approx(job.energy_kwh)
    assert marked is not None
    assert outside is not None
    during = sum(row.energy_kwh or 0.0 for row in found)
    assert all(row.energy_kwh and row.seconds for row in found)
    assert 0 < during < marked < job.energy_kwh
    assert outside + during == pytest.approx(marked)  # before and after training: outside of the epochs


def test_a_drained_job_continues_its_evaluations_to_the_same_result(
    database: Database, worker_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.training.step_log.REPORT_INTERVAL_SECONDS", 0.0)
    settings = {**EARLY, "early_stopping": {"patience": 4}}
    undisturbed = queue_with_validation(database, worker_settings, **settings)
    train_job(undisturbed, settings=worker_settings)
    job_id = queue_with_validation(database, worker_settings, **settings)
    with act_when(lambda: len(evaluations(database, job_id)) >= 3, sigterm):
        train_job(job_id, settings=worker_settings)
    assert read_job(database, job_id).status is JobStatus.QUEUED
    train_job(job_id, settings=worker_settings)

    first, second = read_job(database, undisturbed), read_job(database, job_id)
    assert second.status is JobStatus.SUCCEEDED
    assert second.attempts == 2
    assert (second.best, second.reason, second.steps_done) == (first.best, first.reason, first.steps_done)
    assert [(row.step, row.loss) for row in evaluations(database, job_id)] == [
        (row.step, row.loss) for row in evaluations(database, undisturbed)
    ]
    assert weights(database, job_id) == weights(database, undisturbed)
    assert event_types(database, job_id).count("training.stopped_early") == 1


def test_an_epochs_loss_is_that_of_the_evaluation_at_its_end(database: Database, worker_settings: Settings) -> None:
    job_id = queue_with_validation(database, worker_settings, eval_every=2)
    train_job(job_id, settings=worker_settings)
    with database.session() as session:
        epochs = session.scalars(select(Epoch).where(Epoch.job_id == job_id)).all()
    by_epoch = {epoch.number: epoch.eval_loss for epoch in epochs}
    found = {round(row.epoch): row.loss for row in evaluations(database, job_id)}
    assert found.keys() == {2, 3}
    assert by_epoch == {1: None, **found}
