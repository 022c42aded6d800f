"""Runs with settings of their method, stopped and resumed: the same weights, bit by bit, and the same selections."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from greencore.dataset import Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.listener import TrainingListener
from greencore.training.run import TrainingResult, fine_tune

ADAPTIVE = {
    "reselect_every": 2,
    "probe_batches": 2,
    "metric": "grad",
    "never_train": ["*.layers.0.*"],
    "always_train": ["model.norm.weight", "*.layers.1.*norm.weight"],
}
CHARGED = {"charge_probe": True, "reselect_every": 9}
LORA = {"rank": 4, "targets": "all-linear", "rank_stabilised": True, "dropout": 0.3, "result": "adapter"}


class StopsAfter(TrainingListener):
    """Stops after a step of the whole run."""

    def __init__(self, step: int) -> None:
        self.step, self.done = step, 0

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self.done = done

    def should_stop(self) -> bool:
        return self.done == self.step


def run(
    model_folder: Path, rows: list[Row], folder: Path, settings: dict[str, Any], listener: TrainingListener | None
) -> TrainingResult:
    given = {"epochs": 2, "max_length": 64, "eval_share": 0, "learning_rate": 1e-2, **settings}
    return fine_tune(
        model_folder=model_folder,
        rows=rows,
        hyperparameters=Hyperparameters.model_validate(given),
        rho=0.95,
        method="lora" if "lora" in settings else "greentrainer",
        folder=folder,
        listener=listener,
    )


def result_tensors(result: TrainingResult) -> dict[str, torch.Tensor]:
    assert result.artifact is not None
    return {name: tensor for file in result.artifact.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({"adaptive": ADAPTIVE}, 3),  # within an epoch of five steps, after a reselection
        ({"adaptive": ADAPTIVE}, 5),
        ({"adaptive": CHARGED, "batch_size": 1}, 12),
        ({"precision": "bf16", "micro_batch_size": 2}, 1),  # after a step that measured
        ({"adaptive": {"reselect_every": 2}, "precision": "bf16", "micro_batch_size": 2}, 2),  # before one that will
        ({"lora": LORA}, 8),
    ],
    ids=str,
)
def test_a_resumed_run_ends_with_the_same_weights(
    model_folder: Path, rows: list[Row], tmp_path: Path, settings: dict[str, Any], step: int
) -> None:
    whole = run(model_folder, rows, tmp_path / "whole", settings, None)
    assert not run(model_folder, rows, tmp_path / "parts", settings, StopsAfter(step)).completed
    resumed = run(model_folder, rows, tmp_path / "parts", settings, None)
    expected, found = result_tensors(whole), result_tensors(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    last, again = (
        [(chosen.step, chosen.tensors, chosen.importance) for chosen in result.epochs[-1].selections]
        for result in (whole, resumed)
    )
    assert last == again
    if settings.get("adaptive") == CHARGED:
        assert [len(report.selections) for report in whole.epochs] == [2, 2]
        assert all(report.share_with_probe <= 0.95 for report in whole.epochs)
