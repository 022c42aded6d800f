"""All evaluations of a run have one precision, so that they differ only by training."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from greencore.dataset import Row
from greencore.hyperparameters import Hyperparameters
from greencore.training.listener import TrainingListener
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.run import Method, TrainingResult, fine_tune

pytestmark = pytest.mark.fault(number=7)

HYPERPARAMETERS = Hyperparameters(
    epochs=2, batch_size=4, learning_rate=1e-30, max_length=64, eval_share=0.3, max_new_tokens=3, sample_prompt="w1 w2"
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


@pytest.fixture(scope="module", params=[True, False], ids=["bf16", "fp32"])
def bf16(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Set whether the device supports bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("greencore.training.run.supports_bf16", lambda _: request.param)
        yield bool(request.param)


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


@pytest.fixture(scope="module")
def finished(
    bf16: bool, model_folder: Path, rows: list[Row], tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingResult, Watch, Path]:
    """A run that has ended, its listener and folder, in which a later call evaluates again but trains nothing."""
    folder, watch = tmp_path_factory.mktemp("finished"), Watch()
    return run(model_folder, rows, folder, watch, "greentrainer"), watch, folder


def assert_equal_evaluations(result: TrainingResult, watch: Watch, *, bf16: bool) -> None:
    assert result.before is not None
    assert result.after == result.before
    assert watch.losses == [result.before.loss] * HYPERPARAMETERS.epochs
    assert result.sample is not None
    assert result.sample.after == result.sample.before
    assert watch.precision == ("bf16 autocast" if bf16 else "fp32")


def test_a_run_without_learning_has_equal_evaluations(finished: tuple[TrainingResult, Watch, Path], bf16: bool) -> None:
    result, watch, _ = finished
    assert_equal_evaluations(result, watch, bf16=bf16)


def test_a_lora_run_without_learning_has_equal_evaluations(
    model_folder: Path, rows: list[Row], tmp_path: Path, bf16: bool
) -> None:
    watch = Watch()
    assert_equal_evaluations(run(model_folder, rows, tmp_path, watch, "lora"), watch, bf16=bf16)


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


@pytest.mark.parametrize(
    "damage",
    [
        *("", "{", "null", "[]", '{"bf16": true, "evaluation": {}, "sample": null}'),
        '{"evaluation": null, "sample": "of unknown precision"}',
    ],
)
def test_an_evaluation_in_a_damaged_file_or_of_unknown_precision_is_repeated(
    finished: tuple[TrainingResult, Watch, Path], damage: str, model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished[2], tmp_path / "run"))
    file = folder / "before.json"
    known = json.loads(file.read_text())
    file.write_text(damage)
    result = run(model_folder, rows, folder, Watch(), "greentrainer")
    assert result.after == result.before == finished[0].before
    assert json.loads(file.read_text()) == known
