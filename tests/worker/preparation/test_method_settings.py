"""Preparation of jobs with settings of LoRA and of adaptive backpropagation: floors, FLOPs, refusals."""

from pathlib import Path
from typing import Any

import pytest

from greencore.backprop import BudgetTooSmall
from greencore.dataset import load_rows
from greencore.settings.hyperparameters import Hyperparameters, SettingUnsupported
from greencore.training.run import fine_tune
from runtime.settings import Settings
from store.database import Database
from store.lifecycle.status import JobStatus
from store.repositories.jobs import whole_epochs
from store.repositories.models import ModelRepository
from store.tables import Job
from tests.greencore.training.conftest import small_model
from tests.scheduler.stage import add_job, read_job
from tests.worker.preparation.test_batch_layouts import ROWS
from tests.worker.preparation.test_prepare import holding
from worker.failure_reports import explain_error
from worker.preparation.prepare import JobEstimate, estimate_job, prepare_job

GIVEN = {"epochs": 2, "batch_size": 4, "max_length": 64, "max_new_tokens": 1}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text(ROWS)
    return file


@pytest.fixture
def small_settings(worker_settings: Settings, tmp_path: Path) -> Settings:
    return holding(worker_settings, small_model(tmp_path / "small"))


def estimate(
    settings: Settings, rows: Path, *, method: str = "greentrainer", rho: float = 0.7, **hyperparameters: Any
) -> JobEstimate:
    job = Job(
        model="small",
        method=method,
        policy={"kind": "constant", "rho": rho},
        hyperparameters=GIVEN | hyperparameters,
    )
    return estimate_job(job, rows, settings)


def test_the_floor_is_that_of_the_jobs_own_constraints(small_settings: Settings, rows: Path) -> None:
    plain = estimate(small_settings, rows)
    never = estimate(small_settings, rows, adaptive={"never_train": ["model.norm.weight", "model.layers.2.*"]})
    always = estimate(small_settings, rows, rho=0.95, adaptive={"always_train": ["model.layers.0.*"]})
    charged = estimate(small_settings, rows, adaptive={"charge_probe": True})
    assert plain.rho_floor < never.rho_floor < 0.7 < always.rho_floor < 0.95
    assert plain.rho_floor < charged.rho_floor
    assert plain.full_flops == never.full_flops == always.full_flops == charged.full_flops


@pytest.mark.parametrize(
    ("adaptive", "reason"),
    [
        ({"always_train": ["model.layers.0.*"]}, "the tensors that are always trained"),
        (
            {"charge_probe": True, "reselect_every": 1},
            r"too small for any tensor: .*, the cheapest gradient and the charged probes \(\d",
        ),
    ],
)
def test_a_policy_below_the_jobs_own_floor_is_refused(
    small_settings: Settings, rows: Path, adaptive: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BudgetTooSmall, match=reason) as refusal:
        estimate(small_settings, rows, rho=0.6, adaptive=adaptive)
    assert refusal.value.floor > 0.6
    assert explain_error(refusal.value)["field"] == "policy"


@pytest.mark.parametrize(
    ("method", "hyperparameters", "field", "reason"),
    [
        ("greentrainer", {"adaptive": {"never_train": ["*.embed"]}}, "adaptive.never_train", "matches no tensor"),
        ("greentrainer", {"adaptive": {"always_train": ["lm_head.*"]}}, "adaptive.always_train", "is tied to model"),
        ("lora", {"lora": {"targets": ["query"]}}, "lora.targets", "which has down_proj, gate_proj, k_proj"),
    ],
)
def test_a_name_that_the_model_does_not_have_is_refused_with_its_field(
    small_settings: Settings, rows: Path, method: str, hyperparameters: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(SettingUnsupported) as refusal:
        estimate(small_settings, rows, method=method, **hyperparameters)
    error = explain_error(refusal.value)
    assert error["field"] == f"hyperparameters.{field}"
    assert reason in error["detail"]


@pytest.mark.parametrize("lora", [None, {"targets": "all-linear", "rank": 16}], ids=str)
def test_loras_estimate_is_what_the_run_computes(
    small_settings: Settings, rows: Path, tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    estimated = estimate(small_settings, rows, method="lora", lora=lora)
    result = fine_tune(
        model_folder=tmp_path / "small",
        rows=load_rows(rows),
        hyperparameters=Hyperparameters.model_validate({**GIVEN, "lora": lora}),
        method="lora",
        folder=tmp_path / "run",
    )
    assert estimated.method_flops is not None
    assert sum(report.flops for report in result.epochs) == pytest.approx(estimated.method_flops, rel=0.04)


@pytest.mark.parametrize("adaptive", [None, {"always_train": ["*embed*"]}], ids=str)
def test_a_jobs_own_floor_is_not_stored_as_the_models(
    database: Database, small_settings: Settings, adaptive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.preparation.prepare.get_settings", lambda: small_settings)
    small_settings.datasets_dir.mkdir(parents=True, exist_ok=True)
    small_settings.dataset_file("rows").write_text(ROWS)
    job_id = add_job(
        database,
        JobStatus.VALIDATING,
        model="small",
        policy={"kind": "constant", "rho": 0.9},
        hyperparameters=GIVEN | {"adaptive": adaptive},
        dataset={"rows": 240, "blob": "rows"},
    )
    prepare_job(job_id)
    assert read_job(database, job_id).status is JobStatus.QUEUED
    with database.session() as session:
        assert (ModelRepository(session).get("small") is None) == (adaptive is not None)


def test_a_budget_is_checked_for_the_steps_that_the_job_will_take(
    database: Database, small_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.preparation.prepare.get_settings", lambda: small_settings)
    checked: list[float] = []
    monkeypatch.setattr(
        "worker.preparation.prepare.check_budget", lambda _, job, *__, **___: checked.append(whole_epochs(job))
    )
    small_settings.datasets_dir.mkdir(parents=True, exist_ok=True)
    small_settings.dataset_file("rows").write_text(ROWS)
    job_id = add_job(
        database,
        JobStatus.VALIDATING,
        model="small",
        hyperparameters={name: value for name, value in GIVEN.items() if name != "epochs"} | {"max_steps": 3},
        dataset={"rows": 240, "blob": "rows"},
    )
    prepare_job(job_id)
    assert checked == [whole_epochs(read_job(database, job_id))]
    assert checked[0] % 1 != 0
