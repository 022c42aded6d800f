"""All evaluations of a run have one precision, so that they differ only by training."""

import json
from pathlib import Path

import pytest

from greencore.dataset import Row
from greencore.hyperparameters import Hyperparameters
from greencore.training.listener import TrainingListener
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.run import Method, TrainingResult, fine_tune

pytestmark = pytest.mark.fault(number=7)

HYPERPARAMETERS = Hyperparameters(
    epochs=2, batch_size=4, learning_rate=1e-12, max_length=64, eval_share=0.3, max_new_tokens=3, sample_prompt="w1 w2"
)


class Watch(TrainingListener):
    """Listener that records held-out losses and the precision, and may stop a run after a step or its last epoch."""

    def __init__(self, *, stop_after: int | None = None, stop_in_the_end: bool = False) -> None:
        self.losses: list[float | None] = []
        self.precision = ""
        self._done, self._stop_after, self._stop_in_the_end = 0, stop_after, stop_in_the_end

    def on_training_started(
        self, *, steps: int, steps_done: int, epochs_done: int, device: str, precision: str
    ) -> None:
        self.precision = precision

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self._done = done

    def on_epoch_finished(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        self.losses.append(eval_loss)

    def should_stop(self) -> bool:
        over = self._stop_in_the_end and len(self.losses) == HYPERPARAMETERS.epochs
        return over or self._done == self._stop_after


@pytest.fixture(params=[True, False], ids=["bf16", "fp32"])
def bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Set whether the device supports bfloat16."""
    monkeypatch.setattr("greencore.training.run.supports_bf16", lambda _: request.param)
    return bool(request.param)


def run(
    model: Path, rows: list[Row], folder: Path, listener: TrainingListener, method: Method = "full"
) -> TrainingResult:
    return fine_tune(
        model_folder=model,
        rows=rows,
        hyperparameters=HYPERPARAMETERS,
        rho=0.6,
        method=method,
        folder=folder,
        listener=listener,
    )


@pytest.mark.parametrize("method", ["greentrainer", "lora"])
def test_a_run_without_learning_has_equal_evaluations(
    model_folder: Path, rows: list[Row], tmp_path: Path, bf16: bool, method: Method
) -> None:
    watch = Watch()
    result = run(model_folder, rows, tmp_path, watch, method)
    assert result.before is not None
    assert result.after == result.before
    assert watch.losses == [result.before.loss] * HYPERPARAMETERS.epochs
    assert result.sample is not None
    assert result.sample.after == result.sample.before
    assert watch.precision == ("bf16 autocast" if bf16 else "fp32")


def test_a_run_resumed_on_other_hardware_keeps_its_precision(
    model_folder: Path, rows: list[Row], tmp_path: Path, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Watch(stop_after=1), Watch(stop_in_the_end=True)
    assert not run(model_folder, rows, tmp_path, first).completed
    monkeypatch.setattr("greencore.training.run.supports_bf16", lambda _: not bf16)
    assert not run(model_folder, rows, tmp_path, second).completed
    result = run(model_folder, rows, tmp_path, Watch())
    assert result.before is not None
    assert result.after == result.before
    assert second.losses == [result.before.loss] * HYPERPARAMETERS.epochs
    assert first.precision == second.precision


def test_an_evaluation_of_unknown_precision_is_repeated(
    model_folder: Path, rows: list[Row], tmp_path: Path, bf16: bool
) -> None:
    assert not run(model_folder, rows, tmp_path, Watch(stop_after=1)).completed
    file = tmp_path / "before.json"
    known = json.loads(file.read_text())
    earlier = {key: value for key, value in known.items() if key != "bf16"}
    file.write_text(json.dumps(earlier | {"sample": "of another precision"}))
    result = run(model_folder, rows, tmp_path, Watch())
    assert result.after == result.before
    assert json.loads(file.read_text()) == known


@pytest.mark.parametrize("damaged", ["", "{", "null", "[]", '{"bf16": true, "evaluation": {}, "sample": null}'])
def test_an_evaluation_in_a_damaged_file_is_repeated(
    damaged: str, model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    assert not run(model_folder, rows, tmp_path, Watch(stop_after=1)).completed
    file = tmp_path / "before.json"
    known = json.loads(file.read_text())
    file.write_text(damaged)
    result = run(model_folder, rows, tmp_path, Watch())
    assert result.after == result.before
    assert json.loads(file.read_text()) == known
