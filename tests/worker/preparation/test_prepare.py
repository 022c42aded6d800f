"""Jobs that preparation refuses, with the field at fault."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from greencore.settings.hyperparameters import SettingUnsupported
from greencore.training.batches.positions import MaxLengthExceeded
from greencore.training.models.loading import ModelError, load_tokenizer
from runtime.settings import Settings
from store.tables import Job
from tests.greencore.training.conftest import small_model
from tests.worker.stage import ROWS
from worker.failure_reports import explain_error
from worker.preparation.prepare import JobEstimate, estimate_job


def prepare(
    settings: Settings, tmp_path: Path, *, method: str = "full", content: str = ROWS, **hyperparameters: Any
) -> dict[str, Any]:
    """Prepare a job on the catalogue's small model, and return its error."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(content)
    job = Job(model="small", method=method, policy={"kind": "constant", "rho": 0.6}, hyperparameters=hyperparameters)
    try:
        estimate_job(job, rows, settings)
    except (ModelError, MaxLengthExceeded, SettingUnsupported) as error:
        return explain_error(error)
    raise AssertionError("the job was not refused")


def holding(settings: Settings, folder: Path) -> Settings:
    """Settings whose catalogue holds the folder as `small`."""
    file = folder.with_suffix(".toml")
    file.write_text(f'[small]\nsource = "{folder}"\nlicence = "CC0-1.0"\n')
    return settings.model_copy(update={"catalogue": file})


@pytest.mark.fault(number=9)
def test_a_quantised_model_is_refused(worker_settings: Settings, tmp_path: Path) -> None:
    folder = small_model(tmp_path / "small")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    error = prepare(holding(worker_settings, folder), tmp_path)
    assert (error["title"], error["field"]) == ("The model cannot be used", "model")
    assert "quantised weights (gptq, 4 bits), which cannot be trained" in error["detail"]


@pytest.mark.fault(number=8)
@pytest.mark.parametrize(("method", "most"), [("full", 64), ("greentrainer", 64), ("prefix", 44)])
def test_rows_that_the_model_has_no_positions_for_are_refused_with_the_figure(
    worker_settings: Settings, tmp_path: Path, method: str, most: int
) -> None:
    folder = small_model(tmp_path / "words")
    tokenizer = load_tokenizer(folder)
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    settings = holding(worker_settings, tmp_path / "small")
    error = prepare(settings, tmp_path, method=method)
    assert (error["title"], error["field"]) == ("The model has too few positions", "hyperparameters.max_length")
    assert f"given 512, but the model has positions for {most} tokens" in error["detail"]
    with pytest.raises(AssertionError, match="not refused"):
        prepare(settings, tmp_path, method=method, max_length=most)


@pytest.mark.fault(number=9)
def test_a_token_that_the_model_has_no_embedding_for_is_refused(worker_settings: Settings, tmp_path: Path) -> None:
    folder = small_model(tmp_path / "small")
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["new"])
    tokenizer.save_pretrained(folder)
    content = ROWS.replace("w1 w2", "w1 new")
    error = prepare(holding(worker_settings, folder), tmp_path, content=content)
    assert (error["title"], error["field"]) == ("The model cannot be used", "model")
    assert "a row has the token 'new' with the id 64, but the model knows 64 tokens" in error["detail"]


def test_a_warmup_longer_than_the_run_is_refused_with_the_figure(worker_settings: Settings, tmp_path: Path) -> None:
    error = prepare(worker_settings, tmp_path, batch_size=4, epochs=1, eval_share=0.1, warmup_steps=10)
    assert error["field"] == "hyperparameters.warmup_steps"
    assert "given 10, but the run has 9 steps" in error["detail"]


def test_a_length_in_steps_has_the_work_of_these_steps(worker_settings: Settings, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(ROWS)

    def estimate(**hyperparameters: Any) -> JobEstimate:
        common = {"batch_size": 4, "eval_share": 0.1}
        policy = {"kind": "constant", "rho": 0.6}
        job = Job(model="small", method="full", policy=policy, hyperparameters=common | hyperparameters)
        return estimate_job(job, rows, worker_settings)

    epochs, cut = estimate(epochs=2), estimate(max_steps=12)  # 9 an epoch
    assert (epochs.steps, epochs.epochs, epochs.steps_per_epoch) == (18, 2, 9)
    assert (cut.steps, cut.epochs, cut.steps_per_epoch) == (12, 2, 9)
    assert cut.full_flops == pytest.approx(12 / 18 * epochs.full_flops)
    assert cut.method_flops == pytest.approx(12 / 18 * (epochs.method_flops or 0))
