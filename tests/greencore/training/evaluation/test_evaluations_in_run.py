"""Evaluations during a run: the best checkpoint as its result, early stopping, and both over a stop."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from greencore.dataset import PromptRow, Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.checkpoints.folder import CheckpointFolder
from greencore.training.evaluation.evaluator import MAX_SAMPLE_ROWS
from greencore.training.evaluation.ledger import EvaluationReport
from greencore.training.listener import TrainingListener
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.run import TrainingResult, fine_tune
from tests.greencore.training.conftest import small_model

ROWS: list[Row] = [PromptRow(f"w{n} w1", " w7 w8 w9") for n in range(20)]
# What is learned of the rows is wrong for these: their loss rises at first.
OTHERS: list[Row] = [PromptRow(f"w{n} w2", " w30 w31") for n in range(20)]
SAME: list[Row] = [PromptRow(f"w{n} w3", " w7 w8 w9") for n in range(20)]  # the loss of these falls to the end
STEPS_AN_EPOCH = 5


class Watch(TrainingListener):
    """Records evaluations and epochs; stops after a step, or in the evaluation of one."""

    def __init__(self, *, stop_after: int | None = None, stop_in_evaluation: int | None = None) -> None:
        self._stop_after, self._stop_in, self._evaluations = stop_after, stop_in_evaluation, 0
        self._evaluating, self.steps = False, 0
        self.reports: list[EvaluationReport] = []
        self.epochs: list[tuple[EpochReport, float | None]] = []
        self.reasons: list[str] = []

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self.steps = done

    def on_epoch_finished(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        self.epochs.append((report, eval_loss))

    def on_evaluation_started(self) -> None:
        self._evaluating, self._evaluations = True, self._evaluations + 1

    def on_evaluation_ended(self) -> None:
        self._evaluating = False

    def on_evaluated(self, report: EvaluationReport) -> None:
        self.reports.append(report)

    def on_stopped_early(self, *, step: int, reason: str) -> None:
        self.reasons.append(reason)

    def should_stop(self) -> bool:
        if self._evaluating:
            return self._evaluations == self._stop_in
        return self.steps == self._stop_after

    @property
    def losses(self) -> dict[int, float]:
        return {report.step: report.evaluation.loss for report in self.reports}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"), layers=2)


# The loss of such a run falls first and rises again, so that its best step is not the last.
STAGED = {"adaptive": {"metric": "dw_grad", "probe_batches": 1}, "logits": "all", "packing": False}


def run(
    model: Path, folder: Path, watch: Watch, *, validation: list[Row] | None = None, **settings: Any
) -> TrainingResult:
    values = {"epochs": 3, "learning_rate": 1e-2, "max_length": 32, "max_new_tokens": 3, **STAGED, **settings}
    return fine_tune(
        model_folder=model,
        rows=ROWS,
        validation_rows=OTHERS if validation is None else validation,
        hyperparameters=Hyperparameters(**values),
        rho=0.7,
        folder=folder,
        listener=watch,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "artifacts" / "model.safetensors")


def assert_equal_weights(one: Path, other: Path) -> None:
    expected, found = weights(one), weights(other)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_an_epoch_ends_with_an_evaluation_of_loss_accuracy_and_a_sample_of_completions(
    model: Path, tmp_path: Path
) -> None:
    watch = Watch()
    result = run(model, tmp_path, watch, validation=SAME)

    assert [report.step for report in watch.reports] == [5, 10, 15]
    assert [report.epoch for report in watch.reports] == [1.0, 2.0, 3.0]
    assert [report.epoch_ended for report in watch.reports] == [1, 2, 3]
    assert [loss for _, loss in watch.epochs] == list(watch.losses.values())
    last = watch.reports[-1]
    assert last.rouge_rows == MAX_SAMPLE_ROWS
    assert result.after is not None
    assert (last.evaluation.loss, last.evaluation.accuracy) == (result.after.loss, result.after.accuracy)
    first = watch.reports[0].evaluation
    assert first.accuracy is not None
    assert last.evaluation.accuracy is not None
    assert first.accuracy < last.evaluation.accuracy < 1
    assert last.evaluation.rouge is not None
    assert 0 < last.evaluation.rouge["rougeL"] <= 100
    assert result.step == 15


def test_the_best_evaluations_weights_are_the_result(model: Path, tmp_path: Path) -> None:
    watch = Watch()
    result = run(model, tmp_path / "best", watch, eval_every=2, eval_unit="steps", keep="best")

    assert list(watch.losses) == [2, 4, 6, 8, 10, 12, 14, 15]
    best = min(watch.losses, key=lambda step: watch.losses[step])
    assert result.step == best != 15
    assert result.after is not None
    assert result.after.loss == watch.losses[best]

    last = run(model, tmp_path / "last", Watch(), eval_every=2, eval_unit="steps")
    assert last.step == 15
    assert last.after is not None
    assert last.after.loss == watch.losses[15]


@pytest.mark.parametrize(("patience", "stop"), [(1, 4), (2, 6), (4, 10)])
def test_early_stopping_ends_the_run_as_complete(model: Path, tmp_path: Path, patience: int, stop: int) -> None:
    watch = Watch()
    result = run(
        model, tmp_path, watch, eval_every=2, eval_unit="steps", early_stopping={"patience": patience}, keep="best"
    )

    assert result.completed
    assert watch.steps == stop
    assert watch.reasons == [result.stopped_early]
    assert f"after step {stop}" in str(result.stopped_early)
    assert "lowest after step 2" in str(result.stopped_early)
    assert result.step == 2
    # The epoch within which it ends is reported with its own FLOPs.
    assert len(watch.epochs) == -(-stop // STEPS_AN_EPOCH)
    whole, end = watch.epochs[0][0], watch.epochs[-1][0]
    taken = stop - STEPS_AN_EPOCH * (len(watch.epochs) - 1)
    if len(watch.epochs) > 1:
        assert end.full_flops == pytest.approx(whole.full_flops * taken / STEPS_AN_EPOCH)


def test_an_epoch_that_an_interrupted_evaluation_ends_is_reported_by_the_resumed_run(
    model: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"eval_every": 2, "eval_unit": "steps", "early_stopping": {"patience": 2}}
    whole, first, second, third = Watch(), Watch(stop_in_evaluation=4), Watch(stop_in_evaluation=3), Watch()
    expected = run(model, tmp_path / "whole", whole, **settings)
    assert expected.step == 6  # within the second epoch

    assert not run(model, tmp_path / "parts", first, **settings).completed  # stopped in the evaluation of step 6
    assert not run(model, tmp_path / "parts", second, **settings).completed  # after it, in that of the result
    result = run(model, tmp_path / "parts", third, **settings)

    def measured(*watches: Watch) -> list[Any]:
        epochs = [each for watch in watches for each in watch.epochs]
        return [(report.epoch, report.tensors, report.flops, report.full_flops, loss) for report, loss in epochs]

    assert len(second.epochs) == 1
    assert measured(first, second, third) == measured(whole)
    assert (first.losses, second.losses, third.losses) == (
        {2: whole.losses[2], 4: whole.losses[4]},
        {6: whole.losses[6]},
        {},
    )
    assert second.reasons == whole.reasons
    assert (result.step, result.stopped_early, result.after) == (6, expected.stopped_early, expected.after)
    assert_equal_weights(tmp_path / "whole", tmp_path / "parts")


EARLY: dict[str, Any] = {"eval_every": 2, "eval_unit": "steps", "early_stopping": {"patience": 4}, "keep": "best"}


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watch, TrainingResult]:
    folder, watch = tmp_path_factory.mktemp("undisturbed"), Watch()
    return folder, watch, run(model, folder, watch, **EARLY)


@pytest.mark.parametrize(
    "stop",
    [
        {"stop_after": 3},
        {"stop_after": 7},
        {"stop_in_evaluation": 2},  # at step 2; the first is that before training
        {"stop_in_evaluation": 4},
        {"stop_in_evaluation": 6},  # which would end the run
        {"stop_in_evaluation": 7},  # of the result
    ],
)
def test_a_stopped_run_continues_with_the_same_evaluations_and_result(
    undisturbed: tuple[Path, Watch, TrainingResult], model: Path, tmp_path: Path, stop: dict[str, int]
) -> None:
    folder, whole, expected = undisturbed
    first, second = Watch(**stop), Watch()
    assert not run(model, tmp_path, first, **EARLY).completed
    assert CheckpointFolder(tmp_path).find_newest() is not None

    result = run(model, tmp_path, second, **EARLY)

    assert result.completed
    assert first.losses | second.losses == whole.losses
    assert (result.step, result.stopped_early) == (expected.step, expected.stopped_early)
    assert result.after == expected.after
    assert_equal_weights(folder, tmp_path)


class EndsAfterTwoEpochs(Watch):
    """Ends the run with its second epoch, as a spent budget does."""

    def should_end_after(self, epoch: int) -> bool:
        return epoch == 1


@pytest.mark.parametrize("stop_in_evaluation", [None, 4])  # that of the last step
@pytest.mark.parametrize(("validation", "best"), [(SAME, 10), (OTHERS, 4)], ids=["last", "first"])
def test_a_run_that_the_listener_ends_is_evaluated_at_its_last_step_before_the_best_is_chosen(
    model: Path, tmp_path: Path, validation: list[Row], best: int, stop_in_evaluation: int | None
) -> None:
    settings: dict[str, Any] = {"eval_every": 4, "eval_unit": "steps", "keep": "best", "validation": validation}
    settings["early_stopping"] = {"patience": 2}  # which an evaluation after the end of the run cannot cause
    first = watch = EndsAfterTwoEpochs(stop_in_evaluation=stop_in_evaluation)
    result = run(model, tmp_path, first, **settings)
    if stop_in_evaluation:
        assert not result.completed
        watch = EndsAfterTwoEpochs()
        result = run(model, tmp_path, watch, **settings)

    losses = first.losses | watch.losses
    assert result.completed
    assert list(losses) == [4, 8, 10]
    assert watch.reports[-1].epoch_ended == 2
    assert result.step == best == min(losses, key=lambda step: losses[step])
    assert result.after is not None
    assert result.after.loss == losses[best]
    assert result.stopped_early is None
    assert not first.reasons


def test_the_best_checkpoint_outlives_newer_ones(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path, Watch(stop_after=10), eval_every=2, eval_unit="steps", keep="best")

    folder = CheckpointFolder(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-11", "checkpoint-2"]
    assert folder.find_step(2) is not None


def test_without_its_best_checkpoint_the_result_is_that_of_the_last_step(model: Path, tmp_path: Path) -> None:
    class Forgetful(CheckpointFolder):
        def find_step(self, step: int) -> Path | None:
            return None

    class Missing(Watch):
        missing: int | None = None

        def on_best_missing(self, *, step: int) -> None:
            self.missing = step

    watch, settings = Missing(), {**EARLY, "early_stopping": {"patience": 2}}
    result = fine_tune(
        model_folder=model,
        rows=ROWS,
        validation_rows=OTHERS,
        hyperparameters=Hyperparameters(epochs=3, learning_rate=1e-2, max_length=32, max_new_tokens=3, **settings),
        rho=0.7,
        folder=tmp_path,
        checkpoints=Forgetful(tmp_path),
        listener=watch,
    )
    assert (watch.missing, result.step) == (2, 6)
