"""Estimates of jobs with packed rows, grouped lengths and recomputed blocks; settings that a model does not support."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from greencore.dataset import load_rows
from greencore.settings.hyperparameters import Hyperparameters, SettingUnsupported
from greencore.training.models.loading import load_tokenizer
from greencore.training.run import fine_tune
from runtime.settings import Settings
from store.tables import Job
from tests.greencore.training.conftest import small_model
from tests.greencore.training.families import family_folder
from tests.worker.preparation.test_prepare import holding
from worker.failure_reports import explain_error
from worker.preparation.prepare import JobEstimate, estimate_job

ROWS = "\n".join(
    json.dumps({"prompt": " ".join(["w1"] * (1 + n % 40)), "completion": f" w{n % 60} w8"}) for n in range(240)
)


PADDED = {"packing": False, "group_by_length": False}


def estimate(settings: Settings, rows: Path, **hyperparameters: Any) -> JobEstimate:
    job = Job(model="small", method="full", policy={"kind": "constant", "rho": 1.0}, hyperparameters=hyperparameters)
    return estimate_job(job, rows, settings)


@pytest.mark.parametrize(
    "layout",
    [{"packing": True}, {"group_by_length": True}, {"gradient_checkpointing": True}, {"attention": "eager"}],
    ids=str,
)
def test_the_estimate_is_what_the_run_computes(
    worker_settings: Settings, tmp_path: Path, layout: dict[str, Any]
) -> None:
    folder, rows = small_model(tmp_path / "small"), tmp_path / "rows.jsonl"
    rows.write_text(ROWS)
    given = {"epochs": 2, "batch_size": 4, "max_length": 64, "max_new_tokens": 1, **layout}
    estimated = estimate(holding(worker_settings, folder), rows, **given)
    result = fine_tune(
        model_folder=folder,
        rows=load_rows(rows),
        hyperparameters=Hyperparameters.model_validate(given),
        method="full",
        folder=tmp_path / "run",
    )
    assert sum(report.flops for report in result.epochs) == pytest.approx(estimated.full_flops, rel=0.04)


def test_layouts_differ_in_their_estimates(worker_settings: Settings, tmp_path: Path) -> None:
    settings, rows = holding(worker_settings, small_model(tmp_path / "small")), tmp_path / "rows.jsonl"
    rows.write_text(ROWS)

    def flops(**layout: Any) -> int:
        return estimate(settings, rows, batch_size=4, **PADDED | layout).full_flops

    padded = flops()
    assert flops(group_by_length=True) < flops(packing=True) < padded < flops(gradient_checkpointing=True)
    # A full step recomputes, and one that trains the output alone does not.
    recomputing = estimate(settings, rows, batch_size=4, gradient_checkpointing=True)
    assert recomputing.rho_floor < estimate(settings, rows, batch_size=4).rho_floor


def test_the_estimate_has_the_layout_and_where_logits_are_computed(worker_settings: Settings, tmp_path: Path) -> None:
    settings, rows = holding(worker_settings, small_model(tmp_path / "small")), tmp_path / "rows.jsonl"
    rows.write_text(ROWS)
    chosen = estimate(settings, rows, batch_size=4, packing="auto")
    assert (chosen.layout, chosen.logits) == ("packed", "learned")
    asked = estimate(settings, rows, batch_size=4, group_by_length=True, logits="all")
    assert (asked.layout, asked.logits) == ("grouped", "all")
    assert asked.full_flops > estimate(settings, rows, batch_size=4, group_by_length=True).full_flops


@pytest.mark.parametrize(
    ("layout", "field", "reason"),
    [
        ({"packing": True}, "packing", "takes no positions"),
        ({"attention": "sdpa"}, "attention", "BloomForCausalLM has no sdpa"),
        ({"attention": "flash"}, "attention", "BloomForCausalLM has no flash"),
    ],
)
def test_a_setting_that_the_model_does_not_support_is_refused_with_its_field(
    worker_settings: Settings, tmp_path: Path, layout: dict[str, Any], field: str, reason: str
) -> None:
    folder, rows = tmp_path / "bloom", tmp_path / "rows.jsonl"
    torch.manual_seed(0)
    BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4)).save_pretrained(folder)
    load_tokenizer(small_model(tmp_path / "words")).save_pretrained(folder)
    rows.write_text(ROWS)
    with pytest.raises(SettingUnsupported) as refused:
        estimate(holding(worker_settings, folder), rows, **layout)
    error = explain_error(refused.value)
    assert (error["title"], error["field"]) == ("The setting is not supported", f"hyperparameters.{field}")
    assert reason in error["detail"]


def test_packing_an_encoders_rows_is_refused(worker_settings: Settings, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(ROWS)
    settings = holding(worker_settings, family_folder("t5", tmp_path / "t5"))
    with pytest.raises(SettingUnsupported, match="T5ForConditionalGeneration has an encoder"):
        estimate(settings, rows, packing=True)
    by_default = estimate(settings, rows, packing="auto", group_by_length="auto")
    assert by_default.layout in ("padded", "grouped")
    assert by_default.logits == "all"


def test_flash_attention_is_refused_where_it_cannot_run(tmp_path: Path) -> None:
    rows = load_rows(_write(tmp_path / "rows.jsonl"))
    with pytest.raises(SettingUnsupported, match="flash cannot run on this machine: it needs a CUDA device"):
        fine_tune(
            model_folder=small_model(tmp_path / "small"),
            rows=rows,
            hyperparameters=Hyperparameters(attention="flash"),
            folder=tmp_path / "run",
        )


def _write(file: Path) -> Path:
    file.write_text(ROWS)
    return file
