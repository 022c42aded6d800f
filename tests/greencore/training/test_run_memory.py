"""`auto` recomputation of a run without a service: by the memory of the device where it runs, chosen once."""

import json
from pathlib import Path
from typing import Any

import pytest

from greencore.dataset import Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.run import TrainingResult, fine_tune
from greencore.training.run_memory import FILE_NAME

MEMORY = "greencore.training.run_memory.read_host_memory"


def train(model_folder: Path, rows: list[Row], folder: Path, setting: Any = "auto") -> TrainingResult:
    settings = Hyperparameters(
        max_steps=1,
        batch_size=8,
        max_length=64,
        eval_share=0,
        precision="fp32",
        gradient_checkpointing=setting,
    )
    return fine_tune(
        model_folder=model_folder, rows=rows, hyperparameters=settings, rho=0.7, method="full", folder=folder
    )


def test_blocks_recompute_where_a_step_does_not_fit_otherwise(
    model_folder: Path, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, recomputed = (train(model_folder, rows, tmp_path / str(on), on).epochs[0].full_flops for on in (False, True))
    assert recomputed > kept

    def run(name: str) -> tuple[int, dict[str, Any]]:
        folder = tmp_path / name
        flops = train(model_folder, rows, folder).epochs[0].full_flops
        return flops, json.loads((folder / FILE_NAME).read_text())

    assert train(model_folder, rows, tmp_path / "plenty").epochs[0].full_flops == kept
    assert not (tmp_path / "plenty" / FILE_NAME).exists()  # nothing had to be traced
    monkeypatch.setattr(MEMORY, lambda: 1)
    flops, stored = run("tight")
    assert (flops, stored["recomputes"], stored["device"]) == (recomputed, True, "cpu")
    monkeypatch.setattr(MEMORY, lambda: stored["peak_bytes"])
    flops, again = run("fitting")
    assert (flops, again) == (kept, {**stored, "recomputes": False, "device_bytes": stored["peak_bytes"]})


def test_a_run_keeps_its_choice_when_it_goes_on(
    model_folder: Path, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MEMORY, lambda: 1)
    train(model_folder, rows, tmp_path)
    chosen = json.loads((tmp_path / FILE_NAME).read_text())
    assert (chosen["recomputes"], chosen["device_bytes"]) == (True, 1)
    kept = json.dumps({**chosen, "recomputes": False})  # as no choice here would be
    (tmp_path / FILE_NAME).write_text(kept)
    train(model_folder, rows, tmp_path)
    assert (tmp_path / FILE_NAME).read_text() == kept


@pytest.mark.parametrize("elsewhere", [{"device": "another device"}, {"device_bytes": 10**12}], ids=str)
def test_the_choice_is_made_again_on_another_device_or_with_other_memory(
    model_folder: Path, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: dict[str, Any]
) -> None:
    monkeypatch.setattr(MEMORY, lambda: 1)
    stored = {"device": "cpu", "recomputes": False, "peak_bytes": 10**6, "device_bytes": 1, **elsewhere}
    (tmp_path / FILE_NAME).write_text(json.dumps(stored))
    train(model_folder, rows, tmp_path)
    chosen = json.loads((tmp_path / FILE_NAME).read_text())
    assert (chosen["device"], chosen["recomputes"], chosen["device_bytes"]) == ("cpu", True, 1)
