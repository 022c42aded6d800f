"""A run with non-finite numbers fails at the first such step, without a result."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from greencore.backprop import NotFinite
from greencore.dataset import PromptRow, Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.checkpoints.folder import CheckpointFolder
from greencore.training.data.held_out_rows import split_rows
from greencore.training.evaluation.evaluate import Evaluation
from greencore.training.listener import TrainingListener
from greencore.training.methods.callback import GreenTrainerCallback
from greencore.training.models.loading import ModelError
from greencore.training.run import Method, fine_tune
from tests.greencore.training.conftest import WORDS
from tests.greencore.training.families import family_folder
from tests.greencore.training.methods.trainers import counting_trainer

pytestmark = pytest.mark.fault(number=2)

HYPERPARAMETERS = Hyperparameters(
    epochs=1, batch_size=2, learning_rate=1e-3, max_length=16, eval_share=0, max_new_tokens=1
)
METHODS: Sequence[Method] = ("greentrainer", "full", "lora", "prefix", "top2", "bitfit")
HUGE = 3e38  # finite, and the sum of two is not
EMBEDDINGS = {"gpt2": "transformer.wte.weight", "llama": "model.embed_tokens.weight"}


class Watch(TrainingListener):
    """Listener that records the last step, and may stop after a step."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.done, self._stop_after = 0, stop_after

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self.done = done

    def should_stop(self) -> bool:
        return self.done == self._stop_after


def model_with(folder: Path, value: float, *, family: str = "gpt2") -> Path:
    """Return a model with a constant embedding of w58 and an untied head."""
    family_folder(family, folder, tie_word_embeddings=False)
    weights = load_file(folder / "model.safetensors")
    weights[EMBEDDINGS[family]][WORDS.index("w58")] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model with finite weights whose loss on a row with w58 is NaN."""
    return model_with(tmp_path_factory.mktemp("overflowing"), HUGE)


def rows_with(index: int) -> list[Row]:
    """Return twelve rows, one of them with w58."""
    rows: list[Row] = [PromptRow(f"w{number} w1 w2 w3", " w7 w8 w9") for number in range(12)]
    rows[index] = PromptRow("w58 w1 w2 w3", " w7 w8 w9")
    return rows


def run(
    model: Path, rows: list[Row], folder: Path, method: Method, listener: TrainingListener, **changed: float
) -> None:
    fine_tune(
        model_folder=model,
        rows=rows,
        hyperparameters=HYPERPARAMETERS.model_copy(update=changed),
        rho=0.6,
        method=method,
        folder=folder,
        listener=listener,
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_run_fails_with_the_first_step_whose_loss_is_not_finite(
    overflowing: Path, tmp_path: Path, method: Method
) -> None:
    watch = Watch()
    with pytest.raises(NotFinite, match=r"the loss of step \d+ is nan: training has diverged") as failure:
        run(overflowing, rows_with(3), tmp_path, method, watch)
    assert watch.done > 0
    assert f"step {watch.done + 1} " in str(failure.value)
    assert not (tmp_path / "artifacts").exists()


def test_a_resumed_run_fails_with_the_same_step(overflowing: Path, tmp_path: Path) -> None:
    first, stopped, resumed = Watch(), Watch(stop_after=1), Watch()
    with pytest.raises(NotFinite) as undisturbed:
        run(overflowing, rows_with(3), tmp_path / "undisturbed", "full", first)
    run(overflowing, rows_with(3), tmp_path / "stopped", "full", stopped)
    assert CheckpointFolder(tmp_path / "stopped").find_newest() is not None
    with pytest.raises(NotFinite) as failure:
        run(overflowing, rows_with(3), tmp_path / "stopped", "full", resumed)
    assert str(failure.value) == str(undisturbed.value)


def test_a_non_finite_gradient_norm_fails_the_run_where_the_loss_is_finite(tmp_path: Path) -> None:
    model, watch = model_with(tmp_path / "model", HUGE, family="llama"), Watch()
    with pytest.raises(NotFinite, match="the gradient norm of step") as failure:
        run(model, rows_with(3), tmp_path / "run", "full", watch)
    assert f"step {watch.done + 1} " in str(failure.value)


def test_a_non_finite_first_step_is_not_attributed_to_the_learning_rate(overflowing: Path, tmp_path: Path) -> None:
    rows: list[Row] = [PromptRow("w58 w1", " w7")] * 4
    with pytest.raises(NotFinite, match=r"loss of step 1 is nan: .* the cause is not the learning rate"):
        run(overflowing, rows, tmp_path, "full", Watch())


def test_non_finite_weights_after_the_last_step_are_not_saved(model_folder: Path, tmp_path: Path) -> None:
    rows: list[Row] = [PromptRow("w3 w1", " w7")] * 2  # one step
    with pytest.raises(NotFinite, match=r"after step 1 \S+ is not finite"):
        run(model_folder, rows, tmp_path, "full", Watch(), learning_rate=1e39)
    assert not (tmp_path / "artifacts").exists()
    assert CheckpointFolder(tmp_path).find_newest() is None


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_non_finite_weights_before_training_raise_a_model_error(tmp_path: Path, value: float) -> None:
    model, watch = model_with(tmp_path / "model", value), Watch()
    with pytest.raises(ModelError, match=r"transformer\.wte\.weight holds non-finite values"):
        run(model, rows_with(3), tmp_path / "run", "greentrainer", watch)
    assert watch.done == 0


def test_a_non_finite_held_out_loss_before_training_raises_a_model_error(overflowing: Path, tmp_path: Path) -> None:
    _, [row], _ = split_rows(list(range(12)), eval_share=0.1, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="loss on the held-out rows is nan before training"):
        run(overflowing, rows_with(int(row)), tmp_path, "full", Watch(), eval_share=0.1)  # type: ignore[call-overload]


def test_a_non_finite_held_out_loss_after_an_epoch_fails_the_run(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Evaluation(float("nan"), None, 1)
    monkeypatch.setattr("greencore.training.evaluation.evaluator.Evaluator.evaluate_in_run", lambda *_: found)
    with pytest.raises(NotFinite, match="held-out loss after step 5 is nan"):
        run(model_folder, rows_with(3), tmp_path, "full", Watch(), eval_share=0.2)
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize(("rho", "clipping"), [(1.0, 1.0), (1.0, 0.0), (0.6, 1.0)])
def test_the_callback_fails_any_trainer_at_the_first_non_finite_step(
    overflowing: Path, tmp_path: Path, rho: float, clipping: float
) -> None:
    trainer, _ = counting_trainer(
        overflowing, tmp_path, rows_with(3), [GreenTrainerCallback(rho)], epochs=1, max_grad_norm=clipping
    )
    with pytest.raises(NotFinite, match=r"step \d"):
        trainer.train()
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())  # type: ignore[union-attr]


def test_the_callback_raises_a_model_error_for_non_finite_weights(tmp_path: Path) -> None:
    model = model_with(tmp_path / "model", float("nan"))
    trainer, _ = counting_trainer(model, tmp_path, rows_with(3), [GreenTrainerCallback(0.6)], epochs=1)
    with pytest.raises(ModelError, match=r"transformer\.wte\.weight"):
        trainer.train()
