"""A run with weights in bfloat16 learns as one in float32, and keeps masters only of what it trains."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from greencore.backprop.master_weights import MASTER
from greencore.dataset import PromptRow, Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.checkpoints.folder import CheckpointFolder
from greencore.training.listener import TrainingListener
from greencore.training.models.delta import DELTA_FILE_NAME, apply_delta
from greencore.training.models.loading import load_model
from greencore.training.models.weights import named_tensors
from greencore.training.run import Method, TrainingResult, fine_tune

HALF = Hyperparameters(
    epochs=3, batch_size=4, learning_rate=1e-3, max_length=64, eval_share=0.2, max_new_tokens=1, precision="bf16"
)


class StopsAt(TrainingListener):
    """Listener that stops a run after a step."""

    def __init__(self, step: int) -> None:
        self._step, self._done = step, 0

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self._done = done

    def should_stop(self) -> bool:
        return self._done == self._step


def run(
    model: Path,
    rows: list[Row],
    folder: Path,
    settings: Hyperparameters = HALF,
    *,
    method: Method = "greentrainer",
    listener: TrainingListener | None = None,
) -> TrainingResult:
    return fine_tune(
        model_folder=model,
        rows=rows,
        hyperparameters=settings,
        rho=0.5,
        method=method,
        folder=folder,
        result_folder=folder / settings.result,
        listener=listener,
    )


@pytest.fixture(scope="module")
def undisturbed(
    model_folder: Path, rows: list[Row], tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingResult, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return run(model_folder, rows, folder), folder


def weights(result: TrainingResult) -> dict[str, torch.Tensor]:
    assert result.artifact is not None
    return load_file(result.artifact / "model.safetensors")


def read_masters(folder: Path) -> dict[str, torch.Tensor]:
    """Return the masters in the newest checkpoint of a run's folder, by the names of their tensors."""
    newest = CheckpointFolder(folder).find_newest()
    assert newest is not None
    names = json.loads((newest / "optimizer.json").read_text())["names"]
    state = load_file(newest / "optimizer.safetensors")
    return {names[int(key.partition(".")[0])]: value for key, value in state.items() if key.endswith(MASTER)}


def test_it_learns_as_much_as_in_float32(
    undisturbed: tuple[TrainingResult, Path], model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    half = undisturbed[0]
    full = run(model_folder, rows, tmp_path, HALF.model_copy(update={"precision": "fp32"}))
    assert half.before is not None
    assert half.after is not None
    assert full.after is not None
    assert half.before.loss - half.after.loss > 0.1
    assert half.after.loss == pytest.approx(full.after.loss, rel=0.01)


@pytest.fixture(scope="module")
def untied(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tensors are each used once: the two gradients of a tied one add up in one micro-batch already."""
    folder = tmp_path_factory.mktemp("untied")
    shutil.copytree(model_folder, folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(model_folder, tie_word_embeddings=False)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["full", "greentrainer"])
def test_the_gradients_of_micro_batches_add_up_without_rounding(method: Method, untied: Path, tmp_path: Path) -> None:
    row = PromptRow("w1 w2 w3 w4", " w5 w6")
    settings = HALF.model_copy(
        update={"eval_share": 0.0, "optimizer": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0}
    )
    alone = run(untied, [row], tmp_path / "alone", settings.model_copy(update={"batch_size": 1}), method=method)
    often = settings.model_copy(update={"batch_size": 64, "micro_batch_size": 1})
    together = run(untied, [row] * 64, tmp_path / "together", often, method=method)

    # Each of 64 equal rows has exactly 1/64 of the gradient. Sums in bfloat16 would lose the last of them.
    assert [report.tensors for report in together.epochs] == [report.tensors for report in alone.epochs]
    expected, found = (read_masters(tmp_path / name) for name in ("alone", "together"))
    assert expected.keys() == found.keys() != set()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_its_result_is_in_bfloat16(undisturbed: tuple[TrainingResult, Path]) -> None:
    result = undisturbed[0]
    assert {tensor.dtype for tensor in weights(result).values()} == {torch.bfloat16}
    assert result.artifact is not None
    assert load_model(result.artifact).dtype == torch.float32  # as it is loaded for training in float32


def test_a_checkpoint_has_masters_of_the_selected_tensors_alone(
    undisturbed: tuple[TrainingResult, Path], model_folder: Path
) -> None:
    result, folder = undisturbed
    masters = read_masters(folder)
    assert masters.keys() == set(result.epochs[-1].tensors)
    assert len(masters) < len(named_tensors(load_model(model_folder)))
    newest = CheckpointFolder(folder).find_newest()
    assert newest is not None
    trained = load_file(newest / "weights.safetensors")
    for name, master in masters.items():
        assert master.dtype == torch.float32
        assert torch.equal(master.bfloat16(), trained[name])
        assert not torch.equal(master, trained[name].float())  # it holds more than the weight does


@pytest.mark.parametrize("stop", [2, 4])
def test_a_stopped_run_ends_with_the_same_weights(
    undisturbed: tuple[TrainingResult, Path], model_folder: Path, rows: list[Row], tmp_path: Path, stop: int
) -> None:
    assert not run(model_folder, rows, tmp_path, listener=StopsAt(stop)).completed
    resumed = run(model_folder, rows, tmp_path)
    expected = weights(undisturbed[0])
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())
    assert resumed.after == undisturbed[0].after


def test_a_stopped_run_in_micro_batches_ends_with_the_same_weights(
    model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    split = HALF.model_copy(update={"micro_batch_size": 1})
    whole = run(model_folder, rows, tmp_path / "whole", split)
    assert not run(model_folder, rows, tmp_path / "parts", split, listener=StopsAt(4)).completed
    resumed = run(model_folder, rows, tmp_path / "parts", split)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())


def test_a_stopped_run_keeps_its_precision_whatever_the_device_or_the_settings_become(
    undisturbed: tuple[TrainingResult, Path],
    model_folder: Path,
    rows: list[Row],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("greencore.training.models.precision.supports_bf16", lambda _: True)
    auto = HALF.model_copy(update={"precision": "auto"})
    assert not run(model_folder, rows, tmp_path, auto, listener=StopsAt(2)).completed
    monkeypatch.setattr("greencore.training.models.precision.supports_bf16", lambda _: False)
    resumed = run(model_folder, rows, tmp_path, auto)
    assert resumed.after == undisturbed[0].after


def test_a_delta_gives_the_full_result_bit_by_bit(
    undisturbed: tuple[TrainingResult, Path], model_folder: Path, rows: list[Row]
) -> None:
    full, folder = undisturbed
    delta = run(model_folder, rows, folder, HALF.model_copy(update={"result": "delta"})).artifact
    assert delta is not None
    applied = load_file(apply_delta(model_folder, delta / DELTA_FILE_NAME, folder / "applied") / "model.safetensors")
    expected = weights(full)
    assert applied.keys() == expected.keys()
    assert all(torch.equal(applied[name], value) for name, value in expected.items())
    changed = load_file(delta / DELTA_FILE_NAME)
    assert changed.keys() <= {name for report in full.epochs for name in report.tensors}


def test_a_lora_trains_its_adapter_in_float32_on_bfloat16_weights(
    model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    result = run(model_folder, rows, tmp_path, method="lora")
    assert result.before is not None
    assert result.after is not None
    assert result.after.loss < result.before.loss
    newest = CheckpointFolder(tmp_path).find_newest()
    assert newest is not None
    assert {value.dtype for value in load_file(newest / "weights.safetensors").values()} == {torch.float32}
    assert {tensor.dtype for tensor in weights(result).values()} == {torch.bfloat16}
