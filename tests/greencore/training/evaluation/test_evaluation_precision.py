"""All evaluations of a run have one precision, so that they differ only by training."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from greencore.dataset import Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.listener import TrainingListener
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.run import Method, TrainingResult, fine_tune

pytestmark = pytest.mark.fault(number=7)

EPOCHS = 2
HYPERPARAMETERS = Hyperparameters(
    epochs=EPOCHS,
    batch_size=4,
    learning_rate=1e-30,
    max_length=64,
    eval_share=0.3,
    max_new_tokens=3,
    sample_prompt="w1 w2",
)


class Watch(TrainingListener):
    """Listener that records held-out losses and the precision, and may stop a run after a step or its last epoch."""

    def __init__(self, *, stop_after: int | None = None, stop_in_the_end: bool = False) -> None:
        self.losses: list[float | None] = []
        self.precision = ""
        self._done, self._stop_after, self._stop_in_the_end = 0, stop_after, stop_in_the_end

    def on_training_started(
        self, *, steps: int, steps_done: int, epochs_done: int, within_epoch: bool, device: str, precision: str
    ) -> None:
        self.precision = precision

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self._done = done

    def on_epoch_finished(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        self.losses.append(eval_loss)

    def should_stop(self) -> bool:
        over = self._stop_in_the_end and len(self.losses) == EPOCHS
        return over or self._done == self._stop_after


SUPPORT = "greencore.training.models.precision.supports_bf16"
REPORTED = {"bf16": "bf16 with fp32 masters", "mixed": "bf16 autocast", "fp32": "fp32"}


@pytest.fixture(scope="module", params=["bf16", "mixed", "fp32"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    """Set the precision by the device, which supports bfloat16 or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SUPPORT, lambda _: request.param != "fp32")
        yield request.param


def run(
    model: Path, rows: list[Row], folder: Path, listener: TrainingListener, precision: str, method: Method = "full"
) -> TrainingResult:
    return fine_tune(
        model_folder=model,
        rows=rows,
        hyperparameters=HYPERPARAMETERS.model_copy(update={"precision": "mixed" if precision == "mixed" else "auto"}),
        rho=0.6,
        method=method,
        folder=folder,
        listener=listener,
    )


@pytest.fixture(scope="module")
def finished(
    precision: str, model_folder: Path, rows: list[Row], tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingResult, Watch, Path]:
    """A run that has ended, its listener and folder, in which a later call evaluates again but trains nothing."""
    folder, watch = tmp_path_factory.mktemp("finished"), Watch()
    return run(model_folder, rows, folder, watch, precision, "greentrainer"), watch, folder


def assert_equal_evaluations(result: TrainingResult, watch: Watch, precision: str) -> None:
    assert result.before is not None
    assert result.after == result.before
    assert watch.losses == [result.before.loss] * EPOCHS
    assert result.sample is not None
    assert result.sample.after == result.sample.before
    assert watch.precision == REPORTED[precision]


def test_a_run_without_learning_has_equal_evaluations(
    finished: tuple[TrainingResult, Watch, Path], precision: str
) -> None:
    result, watch, _ = finished
    assert_equal_evaluations(result, watch, precision)


def test_a_lora_run_without_learning_has_equal_evaluations(
    model_folder: Path, rows: list[Row], tmp_path: Path, precision: str
) -> None:
    watch = Watch()
    assert_equal_evaluations(run(model_folder, rows, tmp_path, watch, precision, "lora"), watch, precision)


def test_a_run_resumed_on_other_hardware_keeps_its_precision(
    model_folder: Path, rows: list[Row], tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Watch(stop_after=1), Watch(stop_in_the_end=True)
    assert not run(model_folder, rows, tmp_path, first, precision).completed
    monkeypatch.setattr(SUPPORT, lambda _: precision == "fp32")
    assert not run(model_folder, rows, tmp_path, second, precision).completed
    result = run(model_folder, rows, tmp_path, Watch(), precision)
    assert result.before is not None
    assert result.after == result.before
    assert second.losses == [result.before.loss] * EPOCHS
    assert first.precision == second.precision == REPORTED[precision]


@pytest.mark.parametrize(
    "damage",
    [
        *("", "{", "null", "[]", '{"bf16": true, "evaluation": {}, "sample": null}'),
        '{"evaluation": null, "sample": "of unknown precision"}',
    ],
)
def test_an_evaluation_in_a_damaged_file_or_of_unknown_precision_is_repeated(
    finished: tuple[TrainingResult, Watch, Path],
    precision: str,
    damage: str,
    model_folder: Path,
    rows: list[Row],
    tmp_path: Path,
) -> None:
    folder = Path(shutil.copytree(finished[2], tmp_path / "run"))
    file = folder / "before.json"
    known = json.loads(file.read_text())
    file.write_text(damage)
    result = run(model_folder, rows, folder, Watch(), precision, "greentrainer")
    assert result.after == result.before == finished[0].before
    assert json.loads(file.read_text()) == known
