"""Runs with packed rows, grouped lengths, recomputed blocks and eager attention: equal losses, exact resumption."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from greencore.dataset import Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.packing import PackedCollator
from greencore.training.data.tokenisation import Example
from greencore.training.listener import TrainingListener
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.models.loading import load_model
from greencore.training.run import Method, TrainingResult, fine_tune
from tests.greencore.training.conftest import WORDS, words
from tests.greencore.training.families import family_folder

HYPERPARAMETERS = Hyperparameters(
    packing=False,
    group_by_length=False,
    epochs=2,
    batch_size=4,
    learning_rate=1e-3,
    max_length=64,
    eval_share=0.2,
    max_new_tokens=1,
)
OPT: dict[str, Any] = {
    "model_type": "opt",
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "dropout": 0.0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {
        name: family_folder(name, tmp_path_factory.mktemp(name), **without_dropout(name))
        for name in ("llama", "gpt2", "gemma3")
    }
    made["opt"] = tmp_path_factory.mktemp("opt")
    torch.manual_seed(0)
    settings = dict(OPT)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings)).save_pretrained(
        made["opt"]
    )
    words().save_pretrained(made["opt"])
    return made


def without_dropout(name: str) -> dict[str, Any]:
    """Settings without dropout, whose random numbers depend on the layout of a batch."""
    return {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if name == "gpt2" else {}


class Watch(TrainingListener):
    """Listener that keeps losses and reports, and stops after a number of steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self._stop_after, self.losses, self.reports = stop_after, list[float](), list[EpochReport]()

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self.losses.append(loss)

    def on_epoch_finished(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        self.reports.append(report)

    def should_stop(self) -> bool:
        return len(self.losses) == self._stop_after


def run(
    model: Path,
    rows: list[Row],
    folder: Path,
    watch: TrainingListener,
    method: Method = "greentrainer",
    **settings: Any,
) -> TrainingResult:
    return fine_tune(
        model_folder=model,
        rows=rows,
        hyperparameters=HYPERPARAMETERS.model_copy(update=settings),
        rho=0.7,
        method=method,
        folder=folder,
        listener=watch,
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "opt"])
def test_a_run_on_packed_rows_has_the_losses_of_one_on_padded_rows(
    folders: dict[str, Path], rows: list[Row], tmp_path: Path, family: str
) -> None:
    packed, padded = Watch(), Watch()
    run(folders[family], rows, tmp_path / "packed", packed, "full", packing=True)
    run(folders[family], rows, tmp_path / "padded", padded, "full")
    assert len(packed.losses) == len(padded.losses) == 8
    assert packed.losses == pytest.approx(padded.losses, rel=1e-4)
    batch = PackedCollator(load_model(folders[family]), 0)([Example((1, 2), (1, 2))])
    assert ("attention_mask" in batch) == (family == "opt")  # which needs a mask to keep rows apart


@pytest.mark.fault(number=1)
@pytest.mark.parametrize(
    "settings",
    [
        {"packing": True},
        {"group_by_length": True},
        {"gradient_checkpointing": True, "attention": "eager"},
        {"packing": "auto", "group_by_length": "auto", "gradient_checkpointing": "auto", "attention": "sdpa"},
    ],
    ids=str,
)
def test_a_stopped_run_resumes_to_the_same_weights(
    folders: dict[str, Path], rows: list[Row], tmp_path: Path, settings: dict[str, Any]
) -> None:
    undisturbed, first, second = Watch(), Watch(2), Watch()
    whole = run(folders["llama"], rows, tmp_path / "whole", undisturbed, **settings)
    assert not run(folders["llama"], rows, tmp_path / "stopped", first, **settings).completed
    resumed = run(folders["llama"], rows, tmp_path / "stopped", second, **settings)
    assert [*first.losses, *second.losses] == undisturbed.losses
    assert all(report.share <= 0.7 for report in undisturbed.reports)
    assert [report.flops for report in second.reports] == [report.flops for report in undisturbed.reports]
    assert whole.artifact is not None
    assert resumed.artifact is not None
    expected, found = (load_file(artifact / "model.safetensors") for artifact in (whole.artifact, resumed.artifact))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
