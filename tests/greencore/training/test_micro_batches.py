"""Micro-batches: the same weights and losses whatever the split, and memory that runs out in mid-run."""

import re
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from greencore.dataset import PromptRow, Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.micro_batches import HalvedMicroBatch, MicroBatchCollator, StepTooLarge
from greencore.training.run import Method, TrainingResult, fine_tune
from tests.greencore.training.test_run import Watch

# Momentum without normalisation: AdamW turns the rounding of a gradient near zero into a step of its own size.
HYPERPARAMETERS = Hyperparameters(
    epochs=2,
    batch_size=8,
    learning_rate=0.05,
    optimizer="sgd",
    max_length=64,
    eval_share=0.2,
    max_new_tokens=1,
    precision="fp32",
    packing=False,  # the small device below counts rows
)
ROUNDING = 1e-5
FORWARD = LlamaForCausalLM.forward


@pytest.fixture(scope="module")
def uneven() -> list[Row]:
    """26 rows of 2 to 60 words, of which 1 to 20 are learned: 21 for training, so that a step of 5 ends an epoch."""
    draw = torch.Generator().manual_seed(5)
    made: list[Row] = []
    for index in range(26):
        prompt, completion = (
            " ".join(f"w{int(word)}" for word in torch.randint(62, (length,), generator=draw))
            for length in (1 + (7 * index) % 40, 1 + (11 * index) % 20)
        )
        made.append(PromptRow(prompt, f" {completion}"))
    return made


class Recorder(Watch):
    """Listener that also records halved micro-batches."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__(stop_after)
        self.halved: list[HalvedMicroBatch] = []
        self.chosen: list[int] = []
        self.reason = ""

    def on_micro_batch_halved(self, halved: HalvedMicroBatch) -> None:
        self.halved.append(halved)

    def on_micro_batch_chosen(self, *, rows: int, reason: str) -> None:
        self.chosen.append(rows)
        self.reason = reason


def train(
    model_folder: Path,
    rows: list[Row],
    folder: Path,
    listener: Recorder,
    *,
    method: Method = "full",
    rho: float = 0.6,
    **settings: Any,
) -> TrainingResult:
    given = HYPERPARAMETERS.model_copy(update=settings)
    return fine_tune(
        model_folder=model_folder,
        rows=rows,
        hyperparameters=given,
        rho=rho,
        method=method,
        folder=folder,
        listener=listener,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "artifacts" / "model.safetensors")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of a tensor, relative to its norm."""
    return max(float((one[name] - other[name]).norm() / one[name].norm()) for name in one)


@pytest.mark.parametrize("method", ["full", "greentrainer"])
def test_the_split_into_micro_batches_leaves_weights_and_losses_as_they_are(
    method: Method, model_folder: Path, uneven: list[Row], tmp_path: Path
) -> None:
    whole, base = Recorder(), load_file(model_folder / "model.safetensors")
    train(model_folder, uneven, tmp_path / "whole", whole, method=method)
    expected = weights(tmp_path / "whole")
    assert distance(base, expected) > 100 * ROUNDING
    for size in (1, 2, 4, 5):
        split, folder = Recorder(), tmp_path / str(size)
        train(model_folder, uneven, folder, split, method=method, micro_batch_size=size)
        assert split.losses == pytest.approx(whole.losses, rel=ROUNDING)
        assert distance(expected, weights(folder)) < ROUNDING
        assert [report.tensors for report in split.epochs] == [report.tensors for report in whole.epochs]
        # Less padding: fewer FLOPs for the same rows.
        assert sum(report.full_flops for report in split.epochs) < sum(report.full_flops for report in whole.epochs)


def test_adamw_takes_the_same_steps_in_micro_batches(model_folder: Path, uneven: list[Row], tmp_path: Path) -> None:
    whole, split = Recorder(), Recorder()
    settings: dict[str, Any] = {"optimizer": "adamw", "learning_rate": 1e-3}
    train(model_folder, uneven, tmp_path / "whole", whole, **settings)
    train(model_folder, uneven, tmp_path / "split", split, micro_batch_size=2, **settings)
    assert split.losses == pytest.approx(whole.losses, rel=1e-4)


class SmallDevice:
    """Makes a forward pass with gradients run out of memory above a number of rows."""

    def __init__(self, most_rows: int, *, after_passes: int = 0) -> None:
        self.most_rows, self._after = most_rows, after_passes
        self._passes = 0

    def forward(self, model: LlamaForCausalLM, *given: Any, **inputs: Any) -> Any:
        ids = inputs["input_ids"]
        if torch.is_grad_enabled() and type(ids) is torch.Tensor and not ids.is_meta:  # not while it is traced
            self._passes += 1
            if self._passes > self._after and len(ids) > self.most_rows:
                torch.rand(3)  # as dropout draws before memory runs out
                raise torch.OutOfMemoryError("CUDA out of memory")
        return FORWARD(model, *given, **inputs)


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(device: SmallDevice) -> None:
        @wraps(FORWARD)  # whose arguments say what the model takes
        def forward(*given: Any, **inputs: Any) -> Any:
            return device.forward(*given, **inputs)

        monkeypatch.setattr(LlamaForCausalLM, "forward", forward)

    return use


@pytest.mark.parametrize("method", ["full", "greentrainer"])
def test_out_of_memory_halves_the_micro_batch_once_and_repeats_the_step(
    method: Method, model_folder: Path, uneven: list[Row], tmp_path: Path, small_device: Any
) -> None:
    undisturbed = Recorder()
    train(model_folder, uneven, tmp_path / "whole", undisturbed, method=method)
    # Full: in the second part of a step, whose first has left gradients. GreenTrainer: in the first probe.
    small_device(SmallDevice(2, after_passes=3 if method == "full" else 0))
    watch = Recorder()
    assert train(model_folder, uneven, tmp_path / "halved", watch, method=method, micro_batch_size=4).completed
    assert watch.halved == [HalvedMicroBatch(before=4, after=2)]
    assert watch.losses == pytest.approx(undisturbed.losses, rel=ROUNDING)
    assert distance(weights(tmp_path / "whole"), weights(tmp_path / "halved")) < ROUNDING


def test_a_repeated_step_draws_the_same_random_numbers() -> None:
    collator, draws = MicroBatchCollator(dict, 4), list[torch.Tensor]()

    def compute() -> int:
        draws.append(torch.rand(3))
        if collator.size == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return collator.size

    assert collator.run_within_memory(compute) == 2
    assert torch.equal(*draws)


def test_a_run_that_was_halved_resumes_to_the_same_weights(
    model_folder: Path, uneven: list[Row], tmp_path: Path, small_device: Any
) -> None:
    small_device(SmallDevice(4, after_passes=2))
    train(model_folder, uneven, tmp_path / "undisturbed", Recorder())
    small_device(SmallDevice(4, after_passes=2))
    assert not train(model_folder, uneven, tmp_path / "stopped", Recorder(stop_after=4)).completed
    resumed = Recorder()
    assert train(model_folder, uneven, tmp_path / "stopped", resumed).completed
    assert not resumed.halved
    expected, found = weights(tmp_path / "undisturbed"), weights(tmp_path / "stopped")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_second_out_of_memory_fails_with_what_would_fit(
    model_folder: Path, uneven: list[Row], tmp_path: Path, small_device: Any
) -> None:
    small_device(SmallDevice(3))
    with pytest.raises(StepTooLarge, match=r"micro-batches of 4 rows.*micro_batch_size 2 or less"):
        train(model_folder, uneven, tmp_path, Recorder())


def test_a_single_row_that_does_not_fit_fails_with_what_would(
    model_folder: Path, uneven: list[Row], tmp_path: Path, small_device: Any
) -> None:
    small_device(SmallDevice(0))
    with pytest.raises(StepTooLarge, match="a single row at a time: a smaller max_length"):
        train(model_folder, uneven, tmp_path, Recorder(), micro_batch_size=1)


def test_an_automatic_micro_batch_is_the_largest_that_fits_and_is_kept(
    model_folder: Path, uneven: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plenty, little = Recorder(), Recorder()
    train(model_folder, uneven, tmp_path / "plenty", plenty, micro_batch_size="auto")
    assert plenty.chosen == [8]

    found = re.match(r"the longest row takes ([0-9.]+) MiB", plenty.reason)
    assert found
    longest = float(found[1]) * 2**20
    model = LlamaForCausalLM.from_pretrained(model_folder)
    trained = sum(parameter.numel() * 4 for parameter in model.parameters())
    # Room for the gradients, for SGD's momentum, and for two rows, but not for four.
    available = "greencore.training.micro_batch_choice.get_available_memory"
    monkeypatch.setattr(available, lambda: int((2 * trained + 3 * longest) / 0.95))
    train(model_folder, uneven, tmp_path / "little", little, micro_batch_size="auto")
    assert little.chosen == [2]
    assert little.losses == pytest.approx(plenty.losses, rel=ROUNDING)

    monkeypatch.setattr(available, lambda: trained)
    with pytest.raises(StepTooLarge, match="a single row at a time does not fit"):
        train(model_folder, uneven, tmp_path / "none", Recorder(), micro_batch_size="auto")


def test_a_smaller_micro_batch_of_the_present_device_is_kept_on_resume(tmp_path: Path) -> None:
    MicroBatchCollator(dict, 32).save(tmp_path)
    measured = MicroBatchCollator(dict, 4)
    measured.restore(tmp_path)
    assert measured.size == 4
    larger = MicroBatchCollator(dict, 64)
    larger.restore(tmp_path)
    assert larger.size == 32
