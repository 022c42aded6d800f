"""Preparation of jobs with the method auto: what they become, and what is kept of what was asked for."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from greencore.backprop import profile
from greencore.carbon import Reading
from greencore.clock import utc_now
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.methods import step_costs
from runtime.settings import Settings
from store.database import Database
from store.intensity.readings import GridRepository
from store.lifecycle.actions import request_action
from store.lifecycle.status import Action, JobStatus
from store.repositories.jobs import JobRepository, method_share, whole_epochs
from store.tables import Job
from tests.greencore.training.conftest import small_model
from tests.method_table import FRONTIER
from tests.scheduler.stage import add_job, add_worker, events, read_job
from tests.worker.preparation.test_batch_layouts import ROWS
from tests.worker.preparation.test_method_settings import GIVEN
from tests.worker.preparation.test_prepare import holding
from worker.preparation.prepare import prepare_job

STEPS_PER_EPOCH = 54  # 216 of 240 rows are trained on


@pytest.fixture
def small_settings(worker_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = holding(worker_settings, small_model(tmp_path / "small"))
    monkeypatch.setattr("worker.preparation.prepare.get_settings", lambda: settings)
    monkeypatch.setattr("planning.method_budget.load_frontier", lambda: FRONTIER)
    settings.datasets_dir.mkdir(parents=True, exist_ok=True)
    settings.dataset_file("rows").write_text(ROWS)
    return settings


def add_auto_job(database: Database, policy: dict[str, Any], **given: Any) -> str:
    hyperparameters = Hyperparameters.model_validate(GIVEN | given)
    return add_job(
        database,
        JobStatus.VALIDATING,
        model="small",
        method="auto",
        policy=policy,
        hyperparameters=hyperparameters.model_dump(mode="json"),
        hyperparameters_asked=hyperparameters.model_dump(mode="json", exclude_unset=True),
        dataset={"rows": 240, "blob": "rows"},
        zone="X",
    )


def prepare(database: Database, policy: dict[str, Any], **given: Any) -> Job:
    job_id = add_auto_job(database, policy, **given)
    prepare_job(job_id)
    return read_job(database, job_id)


def test_a_small_budget_goes_to_lora_whose_steps_spend_it(database: Database, small_settings: Settings) -> None:
    job = prepare(database, {"kind": "constant", "rho": 0.25}, epochs=2)
    assert (job.status, job.method, job.method_asked) == (JobStatus.QUEUED, "lora", "auto")
    settings = Hyperparameters.model_validate(job.hyperparameters)
    assert settings.lora is not None
    assert (settings.lora.rank, settings.lora.targets, settings.learning_rate) == (16, "all-linear", 1e-3)
    assert (job.steps, settings.epochs) == (settings.max_steps, None)
    spent = whole_epochs(job) * method_share(job)
    assert 0.5 - 1 / STEPS_PER_EPOCH <= spent <= 0.5
    assert job.hyperparameters_asked is not None
    assert "learning_rate" not in job.hyperparameters_asked
    [chosen] = [event for event in events(database, job.id) if event.type == "method.chosen"]
    assert chosen.data == {"method": "lora", "reason": job.method_reason}
    assert job.method_reason is not None
    assert job.method_reason.startswith(
        "a budget of 0.5 epochs of full fine-tuning (2 at ρ = 0.25), 27 of its steps; at 50 in 0.5 "
    )


def test_a_budget_of_whole_epochs_goes_to_full_fine_tuning(database: Database, small_settings: Settings) -> None:
    job = prepare(database, {"kind": "constant", "rho": 0.5}, epochs=8)
    settings = Hyperparameters.model_validate(job.hyperparameters)
    assert (job.method, settings.epochs, settings.max_steps, settings.lora) == ("full", 4, None, None)
    assert (job.steps, job.epochs, method_share(job)) == (4 * STEPS_PER_EPOCH, 4, 1.0)


def test_a_warm_up_of_a_run_that_gets_shorter_is_shortened(database: Database, small_settings: Settings) -> None:
    job = prepare(database, {"kind": "constant", "rho": 0.5}, epochs=1, warmup_steps=STEPS_PER_EPOCH)
    settings = Hyperparameters.model_validate(job.hyperparameters)
    assert (job.status, settings.warmup_steps) == (JobStatus.QUEUED, job.steps)


def test_what_was_given_is_kept(database: Database, small_settings: Settings) -> None:
    policy = {"kind": "constant", "rho": 0.25}
    job = prepare(database, policy, learning_rate=2e-5, lora={"rank": 2, "targets": ["q_proj"]})
    settings = Hyperparameters.model_validate(job.hyperparameters)
    assert settings.lora is not None
    assert (settings.lora.rank, settings.lora.targets, settings.learning_rate) == (2, ("q_proj",), 2e-5)
    refused = prepare(database, policy, lora={"targets": ["query"]})
    assert (refused.status, refused.method) == (JobStatus.FAILED, "auto")
    assert refused.error is not None
    assert refused.error["field"] == "hyperparameters.lora.targets"


def test_a_policy_by_the_intensity_is_taken_at_its_forecast(database: Database, small_settings: Settings) -> None:
    now = utc_now()
    with database.session() as session:
        GridRepository(session).put(
            [
                Reading(
                    zone="X",
                    start=now - timedelta(hours=1),
                    end=now + timedelta(hours=6),
                    gco2e_per_kwh=100.0,
                    source="test",
                    fetched_at=now,
                )
            ]
        )
        forecast = [(6, 12, 100.0), (12, 30, 500.0)]
        GridRepository(session).put_forecast(
            "X",
            "average",
            [
                Reading(
                    zone="X",
                    start=now + timedelta(hours=start),
                    end=now + timedelta(hours=end),
                    gco2e_per_kwh=value,
                    source="test",
                    fetched_at=now,
                )
                for start, end, value in forecast
            ],
            at=now,
        )
    steps = [{"up_to": 200, "rho": 0.6}, {"rho": 0.4}]
    job = prepare(database, {"kind": "steps", "steps": steps}, epochs=2)
    assert job.method_reason is not None
    assert "(2 at a mean ρ of 0.5, by the intensity of X over the next 24 h)" in job.method_reason


@pytest.mark.parametrize("kind", ["budget", "price"])
def test_a_policy_by_emissions_takes_the_method_that_follows_it(
    database: Database, small_settings: Settings, kind: str
) -> None:
    field = {"budget": "budget_gco2e", "price": "gco2e_per_loss"}[kind]
    job = prepare(database, {"kind": kind, field: 100.0, "rho_max": 1.0, "rho_min": 0.8}, lora={"rank": 4})
    assert (job.status, job.method) == (JobStatus.QUEUED, "greentrainer")
    assert job.hyperparameters == Hyperparameters.model_validate(GIVEN).model_dump(mode="json")


def test_a_method_that_fits_no_device_is_passed_over(database: Database, small_settings: Settings) -> None:
    policy = {"kind": "constant", "rho": 0.5}
    settings = {"gradient_checkpointing": False, "batch_size": 1}
    plain = prepare(database, policy, **settings)
    assert plain.method == "full"
    assert plain.estimate is not None
    add_worker(database, "X", memory_bytes=plain.estimate["peak_memory_bytes"] - 1, computes_bf16=False)
    job = prepare(database, policy, **settings)
    assert (job.status, job.method) == (JobStatus.QUEUED, "lora")
    assert job.method_reason is not None
    assert "full fine-tuning is ruled out (a step needs" in job.method_reason


def test_a_budget_pays_for_fewer_steps_where_memory_makes_them_recompute(
    database: Database, small_settings: Settings
) -> None:
    policy = {"kind": "constant", "rho": 0.25}
    kept = prepare(database, policy)
    assert kept.estimate is not None
    add_worker(database, "X", memory_bytes=kept.estimate["peak_memory_bytes"] - 1, computes_bf16=False)
    job = prepare(database, policy, gradient_checkpointing="auto")
    assert job.estimate is not None
    assert (job.status, job.method, kept.method) == (JobStatus.QUEUED, "lora", "lora")
    assert job.estimate["gradient_checkpointing"]
    assert method_share(job) > method_share(kept)
    assert 0.5 - 1 / STEPS_PER_EPOCH <= whole_epochs(job) * method_share(job) <= 0.5
    assert job.estimate["parameters"] == kept.estimate["parameters"]


def test_a_retried_job_keeps_its_choice_and_one_that_was_not_prepared_makes_it_again(
    database: Database, small_settings: Settings
) -> None:
    policy = {"kind": "constant", "rho": 0.25}
    unknown = {"targets": ["query"]}
    kept, again = add_auto_job(database, policy), add_auto_job(database, policy, lora=unknown)
    for job_id in (kept, again):
        prepare_job(job_id)
    before = read_job(database, kept)
    with database.session() as session:
        jobs = JobRepository(session)
        for job_id, status in ((kept, JobStatus.CANCELLED), (again, JobStatus.FAILED)):
            job = jobs.lock(job_id)
            assert job is not None
            if job.status is not status:
                request_action(session, job, Action.CANCEL, by="alice", at=utc_now())
            assert job.status is status
            request_action(session, job, Action.RETRY, by="alice", at=utc_now())
    after = read_job(database, kept)
    assert (after.status, after.method) == (JobStatus.QUEUED, before.method)
    assert after.hyperparameters == before.hyperparameters
    unprepared = read_job(database, again)
    assert (unprepared.status, unprepared.method) == (JobStatus.VALIDATING, "auto")


def test_what_the_choice_has_traced_is_not_traced_again(
    database: Database, small_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[int] = []

    def trace(*given: Any, **settings: Any) -> Any:
        traced.append(1)
        return profile(*given, **settings)

    monkeypatch.setattr(step_costs, "profile", trace)
    chosen = prepare(database, {"kind": "constant", "rho": 0.25}, epochs=2)
    by_choice = len(traced)
    assert chosen.hyperparameters["lora"] is not None
    named = add_job(
        database,
        JobStatus.VALIDATING,
        model="small",
        method="lora",
        policy={"kind": "constant", "rho": 0.25},
        hyperparameters=chosen.hyperparameters,
        dataset={"rows": 240, "blob": "rows"},
        zone="X",
    )
    prepare_job(named)
    assert len(traced) == 2 * by_choice
    estimates = chosen.estimate, read_job(database, named).estimate
    assert estimates[0] == estimates[1] is not None
