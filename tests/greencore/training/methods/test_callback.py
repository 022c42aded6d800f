"""The callback inside a plain transformers Trainer."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from greencore.backprop import BudgetTooSmall
from greencore.dataset import PromptRow, Row
from greencore.training import GreenTrainerCallback
from greencore.training.methods.callback import RhoSchedule
from greencore.training.models.loading import load_model
from tests.greencore.training.conftest import small_model
from tests.greencore.training.methods.trainers import CountingTrainer, counting_trainer

MakeTrainer = Callable[..., tuple[CountingTrainer, PreTrainedModel]]


@pytest.fixture(scope="module")
def make_trainer(model_folder: Path, rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> MakeTrainer:
    folder = tmp_path_factory.mktemp("runs")

    def make(
        *callbacks: GreenTrainerCallback, data: Sequence[Row] = rows, **options: Any
    ) -> tuple[CountingTrainer, PreTrainedModel]:
        return counting_trainer(model_folder, folder, data, callbacks, **options)

    return make


def assert_within_and_close(
    model_folder: Path, output: Path, asked: Sequence[float], data: Sequence[Row], *, probe_batches: int | None
) -> None:
    """Assert that each epoch's steps stay within its ρ and together come close to it, as torch counts and reports.

    An epoch's first step may be the probe: it takes what the report says beyond the selection's.
    """
    full, _ = counting_trainer(model_folder, output, data, [], epochs=len(asked))
    full.train()
    green = GreenTrainerCallback(lambda epoch: asked[epoch], probe_batches=probe_batches)
    trainer, _ = counting_trainer(model_folder, output, data, [green], epochs=len(asked))
    trainer.train()
    measured = trainer.list_measured(green)
    steps = len(full.counted) // len(asked)
    assert len(trainer.counted) == len(full.counted)
    for epoch, rho in enumerate(asked):
        part, report = slice(epoch * steps, (epoch + 1) * steps), green.epochs[epoch]
        shares = [step / whole for step, whole in zip(trainer.counted[part], full.counted[part], strict=True)]
        probes = measured[part]
        assert probes == [probe_batches is None and rho < 1, *[False] * (steps - 1)]
        assert max(share for share, probe in zip(shares, probes, strict=True) if not probe) <= rho
        share = sum(trainer.counted[part]) / sum(full.counted[part])
        if probe_batches is None:
            assert share == pytest.approx(report.share_with_probe, abs=0.02)
        else:
            assert rho - 0.02 < share <= rho
        assert rho - 0.02 < report.share <= rho
        assert report.rho == rho


@pytest.mark.parametrize("probe_batches", [None, 1])
def test_every_step_that_torch_counts_stays_within_rho_and_close_to_it(
    rows: list[Row], tmp_path: Path, probe_batches: int | None
) -> None:
    deep = small_model(tmp_path / "model", layers=6)  # whose tensors fill any budget
    assert_within_and_close(deep, tmp_path / "run", [0.5, 0.9, 0.7, 1.0], rows, probe_batches=probe_batches)


@pytest.mark.parametrize("probe_batches", [None, 1])
def test_padding_counts_towards_the_budget(model_folder: Path, tmp_path: Path, probe_batches: int | None) -> None:
    padded = [PromptRow("w1 w2", " w3"), PromptRow("w1 w2 w3", " w4 w5")] * 4  # batches are padded beyond every row
    assert_within_and_close(model_folder, tmp_path, [0.5, 0.7, 0.9], padded, probe_batches=probe_batches)


class Watch(GreenTrainerCallback):
    """Records, as each epoch ends, the tensors with optimiser state and those that were trained."""

    def __init__(self, rho: RhoSchedule) -> None:
        super().__init__(rho)
        self.seen: list[tuple[set[str], set[str]]] = []

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_epoch_end(args, state, control, **kwargs)
        names = {parameter: name for name, parameter in kwargs["model"].named_parameters()}
        held = {names[parameter] for parameter in kwargs["optimizer"].state}
        self.seen.append((held, set(self.epochs[-1].tensors)))


@pytest.fixture(scope="module")
def trained(make_trainer: MakeTrainer) -> tuple[Watch, PreTrainedModel]:
    """A run of three epochs, which has ended."""
    watch = Watch(lambda epoch: [0.7, 0.5, 0.6][epoch])
    trainer, model = make_trainer(watch, counting=False)
    trainer.train()
    return watch, model


def test_only_tensors_that_some_epoch_selected_change(
    trained: tuple[Watch, PreTrainedModel], model_folder: Path
) -> None:
    watch, model = trained
    base = dict(load_model(model_folder).named_parameters())
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, base[name])}
    selected = {name for report in watch.epochs for name in report.tensors}
    assert changed
    assert changed <= selected < set(base)


def test_the_optimiser_keeps_state_only_for_what_is_trained(trained: tuple[Watch, PreTrainedModel]) -> None:
    watch, _ = trained
    assert len(watch.seen) == 3
    assert len({frozenset(chosen) for _, chosen in watch.seen}) > 1
    assert all(held == chosen for held, chosen in watch.seen)


def test_after_training_every_tensor_is_trainable_again(trained: tuple[Watch, PreTrainedModel]) -> None:
    _, model = trained
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model._forward_pre_hooks


def test_rho_of_one_is_full_fine_tuning_bit_by_bit(make_trainer: MakeTrainer) -> None:
    plain, expected = make_trainer(epochs=2, counting=False)
    plain.train()
    green = GreenTrainerCallback(1.0)
    trainer, model = make_trainer(green, epochs=2, counting=False)
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), model.parameters(), strict=True))
    assert [report.share for report in green.epochs] == [1.0, 1.0]
    assert [report.probe_flops for report in green.epochs] == [0, 0]


def test_training_learns_at_half_the_flops(make_trainer: MakeTrainer) -> None:
    trainer, _ = make_trainer(GreenTrainerCallback(0.5), epochs=12, logging_steps=5, counting=False)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # The frozen, tied output embedding is random and small here, so the loss can fall by half a nat at most.
    assert losses[-1] < losses[0] - 0.4


def test_tensors_frozen_before_training_are_not_trained(make_trainer: MakeTrainer) -> None:
    green = GreenTrainerCallback(0.8)
    trainer, model = make_trainer(green, epochs=1, counting=False)
    model.get_input_embeddings().requires_grad_(False)
    trainer.train()
    assert green.epochs[0].tensors_total == len(list(model.parameters())) - 1
    assert not next(model.get_input_embeddings().parameters()).requires_grad


@pytest.mark.parametrize("rho", [0.0, 1.2, float("nan")])
def test_a_rho_outside_its_range_is_refused(make_trainer: MakeTrainer, rho: float) -> None:
    trainer, _ = make_trainer(GreenTrainerCallback(rho), epochs=1)
    with pytest.raises(ValueError, match="ρ of epoch 0"):
        trainer.train()


def test_below_the_floor_training_ends_with_the_floor(make_trainer: MakeTrainer) -> None:
    trainer, _ = make_trainer(GreenTrainerCallback(0.3), epochs=1)
    with pytest.raises(BudgetTooSmall) as refusal:
        trainer.train()
    assert 0.33 < refusal.value.floor < 0.5
