"""Complete runs: result, evaluation, and resuming after a stop."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from greencore.backprop import TensorCost
from greencore.dataset import Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.learned_positions import FILE_NAME
from greencore.training.checkpoints.folder import CheckpointFolder
from greencore.training.listener import TrainingListener
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.models.precision import PRECISION_FILE_NAME
from greencore.training.run import TrainingResult, fine_tune

HYPERPARAMETERS = Hyperparameters(
    epochs=3, batch_size=4, learning_rate=1e-2, max_length=64, eval_share=0.2, max_new_tokens=6, sample_prompt="w1 w2"
)
RHO = [0.7, 0.5, 0.9]


class Watch(TrainingListener):
    """Listener that stops after a number of steps and records its calls."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after, self.steps, self.epochs, self.epochs_done = stop_after, 0, list[EpochReport](), -1
        self.losses: list[float] = []

    def on_training_started(
        self, *, steps: int, steps_done: int, epochs_done: int, within_epoch: bool, device: str, precision: str
    ) -> None:
        self.epochs_done = epochs_done

    def on_tensors_profiled(self, costs: Sequence[TensorCost]) -> None:
        self.costs = costs

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self.steps = done
        self.losses.append(loss)

    def on_epoch_finished(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        assert eval_loss is not None
        self.epochs.append(report)

    def should_stop(self) -> bool:
        return self.steps == self.stop_after


class StopsAfterTraining(Watch):
    """Listener that stops after the last epoch."""

    def should_stop(self) -> bool:
        return len(self.epochs) == len(RHO)


def run(model_folder: Path, rows: list[Row], folder: Path, listener: TrainingListener | None = None) -> TrainingResult:
    return fine_tune(
        model_folder=model_folder,
        rows=rows,
        hyperparameters=HYPERPARAMETERS,
        rho=lambda epoch: RHO[epoch],
        folder=folder,
        listener=listener,
    )


@dataclass(frozen=True)
class Run:
    """A run that has ended, and its listener."""

    result: TrainingResult
    watch: Watch
    folder: Path


@pytest.fixture(scope="module")
def undisturbed(model_folder: Path, rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, watch = tmp_path_factory.mktemp("undisturbed"), Watch()
    return Run(run(model_folder, rows, folder, watch), watch, folder)


@pytest.fixture(scope="module")
def stopped(model_folder: Path, rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was stopped within its second epoch."""
    folder, watch = tmp_path_factory.mktemp("stopped"), Watch(stop_after=6)
    return Run(run(model_folder, rows, folder, watch), watch, folder)


def test_the_result_loads_and_differs_only_where_it_was_trained(undisturbed: Run, model_folder: Path) -> None:
    assert undisturbed.result.completed
    tuned = AutoModelForCausalLM.from_pretrained(undisturbed.folder / "artifacts")
    AutoTokenizer.from_pretrained(undisturbed.folder / "artifacts")
    base = dict(AutoModelForCausalLM.from_pretrained(model_folder).named_parameters())
    changed = {name for name, p in tuned.named_parameters() if not torch.equal(p, base[name])}
    watch = undisturbed.watch
    assert changed
    assert changed <= {name for report in watch.epochs for name in report.tensors}
    assert [report.rho for report in watch.epochs] == RHO
    assert {cost.name for cost in watch.costs} == set(base)
    assert watch.epochs[0].importance.keys() <= set(base)


def test_a_stopped_run_resumes_from_its_last_epoch_to_the_same_weights(
    undisturbed: Run, stopped: Run, model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    assert not stopped.result.completed
    assert not (stopped.folder / "artifacts").exists()
    folder, second = Path(shutil.copytree(stopped.folder, tmp_path / "stopped")), Watch()
    assert run(model_folder, rows, folder, second).completed
    assert len(stopped.watch.epochs) == second.epochs_done == 1
    assert [report.epoch for report in second.epochs] == [1, 2]
    # A stop during the final evaluation leaves nothing to train.
    assert not run(model_folder, rows, tmp_path / "evaluated", StopsAfterTraining()).completed
    assert CheckpointFolder(tmp_path / "evaluated").find_newest() is not None
    third = Watch()
    assert run(model_folder, rows, tmp_path / "evaluated", third).completed
    assert third.steps == 0
    expected = load_file(undisturbed.folder / "artifacts" / "model.safetensors")
    for name in ("stopped", "evaluated"):
        found = load_file(tmp_path / name / "artifacts" / "model.safetensors")
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_stop_ends_the_evaluation_before_training(model_folder: Path, rows: list[Row], tmp_path: Path) -> None:
    assert not run(model_folder, rows, tmp_path, Watch(stop_after=0)).completed
    assert {path.name for path in tmp_path.iterdir()} == {PRECISION_FILE_NAME, FILE_NAME}  # what every start fixes


class EndsAfterTwo(Watch):
    """Listener that ends the run after the second epoch."""

    def should_end_after(self, epoch: int) -> bool:
        return epoch == 1


def test_a_listener_can_end_a_run_after_an_epoch_with_its_result(
    model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    watch = EndsAfterTwo()
    assert run(model_folder, rows, tmp_path, watch).completed
    assert [report.epoch for report in watch.epochs] == [0, 1]
    assert (tmp_path / "artifacts" / "model.safetensors").is_file()


def test_an_epoch_report_holds_a_curve_of_other_shares(undisturbed: Run) -> None:
    assert undisturbed.watch.epochs
    for report in undisturbed.watch.epochs:
        assert report.curve is not None
        assert report.curve.rho[-1] <= report.rho
        slopes = np.diff(report.curve.importance) / np.diff(report.curve.rho)
        assert (slopes[1:] <= slopes[:-1]).all()


def test_a_checkpoint_is_complete_and_holds_no_pickle(stopped: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(stopped.folder, tmp_path / "stopped"))
    half_written = folder / ".checkpoint"
    half_written.mkdir()
    checkpoint = CheckpointFolder(folder).find_newest()
    assert checkpoint is not None
    assert {path.suffix for path in checkpoint.iterdir()} == {".json", ".safetensors"}
    assert json.loads((checkpoint / "trainer_state.json").read_text())["epoch"] == 1.75
    assert [path.name for path in folder.glob("checkpoint-*")] == [checkpoint.name]


def test_evaluation_and_sample_are_given_before_and_after(undisturbed: Run) -> None:
    result = undisturbed.result
    assert result.before is not None
    assert result.after is not None
    assert result.after.loss < result.before.loss
    assert result.after.rows == 4
    assert result.after.rouge is not None
    assert result.sample is not None
    assert result.sample.before != result.sample.after


def test_a_lora_result_is_merged(model_folder: Path, rows: list[Row], tmp_path: Path) -> None:
    result = fine_tune(
        model_folder=model_folder,
        rows=rows,
        hyperparameters=HYPERPARAMETERS.model_copy(update={"epochs": 1}),
        method="lora",
        folder=tmp_path,
    )
    assert result.completed
    base, found = (load_file(folder / "model.safetensors") for folder in (model_folder, tmp_path / "artifacts"))
    changed = {name for name in base if not torch.equal(base[name], found[name])}
    assert changed == {name for name in base if name.endswith(("q_proj.weight", "v_proj.weight"))}


def test_a_prompt_format_applies_to_training_and_evaluation(
    model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    def losses(prompt_format: str) -> tuple[float, float]:
        """The held-out loss before training, and that of the first step."""
        watch = Watch(stop_after=1)
        result = fine_tune(
            model_folder=model_folder,
            rows=rows,
            hyperparameters=HYPERPARAMETERS.model_copy(update={"prompt_format": prompt_format}),
            method="full",
            folder=tmp_path / prompt_format,
            listener=watch,
        )
        assert result.before is not None
        return result.before.loss, watch.losses[0]

    plain, tldr = losses("plain"), losses("tldr")
    assert plain[0] != tldr[0]
    assert plain[1] != tldr[1]
