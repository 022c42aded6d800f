"""A stopped run resumes in every family: checkpoints hold the modules' names, not the published ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from greencore.dataset import PromptRow, Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.checkpoints.folder import CheckpointFolder, CheckpointUnusable
from greencore.training.listener import TrainingListener
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.models.delta import DELTA_FILE_NAME, apply_delta
from greencore.training.models.loading import load_model
from greencore.training.models.weights import named_tensors, write_tensors
from greencore.training.run import Method, TrainingResult, fine_tune
from tests.greencore.training.families import FAMILIES, family_folder

pytestmark = pytest.mark.fault(number=1)

EPOCHS = 2
HYPERPARAMETERS = Hyperparameters(
    epochs=EPOCHS, batch_size=2, learning_rate=1e-2, max_length=16, eval_share=0.2, max_new_tokens=1
)
METHODS: Sequence[Method] = ("greentrainer", "full", "lora", "prefix", "top2", "bitfit")
# Every method for a family without renamed tensors. For every other the most demanding one, since only an adapter has
# names of its own: with experts, and in a model with a vision tower.
CASES = [
    *(("gpt2", method) for method in METHODS),
    *((family, "greentrainer") for family in FAMILIES if family != "gpt2"),
    *((family, "lora") for family in ("mixtral", "gemma3")),
]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Return rows of one length, so that no step needs more than one trace."""
    draw = torch.Generator().manual_seed(2)
    return [
        PromptRow(" ".join(f"w{int(n)}" for n in torch.randint(56, (4,), generator=draw)), " w7 w8 w9")
        for _ in range(10)
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: family_folder(name, tmp_path_factory.mktemp(name)) for name in FAMILIES}


class StopsAt(TrainingListener):
    """Listener that stops a run at a step, whose report it has not received yet."""

    def __init__(self, step: int) -> None:
        self._step, self._done = step, 0

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self._done = done

    def should_stop(self) -> bool:
        return self._done == self._step - 1


class StopsInLastEvaluation(TrainingListener):
    """Listener that stops a run after its last epoch."""

    def __init__(self) -> None:
        self._over = False

    def on_epoch_finished(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        self._over = report.epoch == EPOCHS - 1

    def should_stop(self) -> bool:
        return self._over


def run(
    model: Path,
    rows: list[Row],
    folder: Path,
    method: Method,
    listener: TrainingListener | None = None,
    **hyperparameters: Any,
) -> TrainingResult:
    return fine_tune(
        model_folder=model,
        rows=rows,
        hyperparameters=HYPERPARAMETERS.model_copy(update=hyperparameters),
        rho=0.6,
        method=method,
        folder=folder,
        listener=listener,
    )


def artifact_tensors(result: TrainingResult) -> dict[str, torch.Tensor]:
    assert result.artifact is not None
    [file] = result.artifact.glob("*.safetensors")
    return load_file(file)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("family", "method"), CASES)
def test_a_run_stopped_in_training_and_in_its_last_evaluation_ends_as_an_uninterrupted_one(
    folders: dict[str, Path], rows: list[Row], tmp_path: Path, family: str, method: Method
) -> None:
    undisturbed = run(folders[family], rows, tmp_path / "undisturbed", method)
    stopped = tmp_path / "stopped"
    assert not run(folders[family], rows, stopped, method, StopsAt(3)).completed
    assert not run(folders[family], rows, stopped, method, StopsInLastEvaluation()).completed
    resumed = run(folders[family], rows, stopped, method)

    assert same(artifact_tensors(undisturbed), artifact_tensors(resumed))
    assert (resumed.before, resumed.after) == (undisturbed.before, undisturbed.after)
    if method not in ("lora", "prefix"):
        assert_holds_trained_weights(undisturbed, tmp_path / "undisturbed")


def assert_holds_trained_weights(result: TrainingResult, folder: Path) -> None:
    """Check that the artifact, loaded by transformers, equals the last checkpoint."""
    checkpoint = CheckpointFolder(folder).find_newest()
    assert checkpoint is not None
    assert result.artifact is not None
    encoder = AutoConfig.from_pretrained(result.artifact).is_encoder_decoder
    kind: Any = AutoModelForSeq2SeqLM if encoder else AutoModelForCausalLM
    loaded, report = kind.from_pretrained(result.artifact, output_loading_info=True)
    assert not report["missing_keys"] | report["unexpected_keys"]
    assert same(named_tensors(loaded), load_file(checkpoint / "weights.safetensors"))


@pytest.mark.parametrize("family", ["qwen3-moe", "gemma3"])
def test_a_delta_applied_to_its_base_is_the_full_result(
    folders: dict[str, Path], rows: list[Row], tmp_path: Path, family: str
) -> None:
    whole = run(folders[family], rows, tmp_path / "whole", "greentrainer", epochs=1)
    delta = run(folders[family], rows, tmp_path / "delta", "greentrainer", epochs=1, result="delta").artifact
    assert whole.artifact is not None
    assert delta is not None
    applied = apply_delta(folders[family], delta / DELTA_FILE_NAME, tmp_path / "applied")
    assert {path.name: path.read_bytes() for path in applied.iterdir()} == {
        path.name: path.read_bytes() for path in whole.artifact.iterdir()
    }


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_a_checkpoint_in_the_published_names_is_still_read(
    folders: dict[str, Path], rows: list[Row], tmp_path: Path, family: str
) -> None:
    undisturbed = run(folders[family], rows, tmp_path / "undisturbed", "greentrainer")
    run(folders[family], rows, tmp_path / "stopped", "greentrainer", StopsAt(3))
    checkpoint = CheckpointFolder(tmp_path / "stopped").find_newest()
    assert checkpoint is not None
    model, file = load_model(folders[family]), checkpoint / "weights.safetensors"
    write_tensors(model, load_file(file), named_tensors(model))
    model.save_pretrained(checkpoint)
    file.unlink()
    resumed = run(folders[family], rows, tmp_path / "stopped", "greentrainer")
    assert same(artifact_tensors(undisturbed), artifact_tensors(resumed))


@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_an_adapters_checkpoint_in_the_published_names_is_still_read(
    folders: dict[str, Path], rows: list[Row], tmp_path: Path, method: Method
) -> None:
    undisturbed = run(folders["gpt2"], rows, tmp_path / "undisturbed", method)
    run(folders["gpt2"], rows, tmp_path / "stopped", method, StopsAt(3))
    checkpoint = CheckpointFolder(tmp_path / "stopped").find_newest()
    assert checkpoint is not None
    file = checkpoint / "weights.safetensors"
    prefix = {"prompt_encoder.default.embedding.weight": "prompt_embeddings"}
    adapter = {prefix.get(name, name.replace(".default.", ".")): value for name, value in load_file(file).items()}
    save_file(adapter, checkpoint / "adapter_model.safetensors")
    file.unlink()
    resumed = run(folders["gpt2"], rows, tmp_path / "stopped", method)
    assert same(artifact_tensors(undisturbed), artifact_tensors(resumed))


def test_a_checkpoint_of_another_model_is_refused_with_the_difference(
    folders: dict[str, Path], rows: list[Row], tmp_path: Path
) -> None:
    run(folders["llama"], rows, tmp_path, "full", StopsAt(3))
    with pytest.raises(CheckpointUnusable, match=r"checkpoint-3 .* lacks \d+ of the model's .*experts\."):
        run(folders["mixtral"], rows, tmp_path, "full")
