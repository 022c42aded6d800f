"""Recipe of a run: schedule, optimisers, their predicted updates, clipping and length; each resumes bit by bit."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, get_scheduler

from greencore.backprop.optimizer_dry_run import OptimizerDryRun
from greencore.dataset import Row
from greencore.settings.hyperparameters import Hyperparameters, SettingUnsupported
from greencore.training.checkpoints.folder import CheckpointFolder
from greencore.training.data.tokenisation import Collator, tokenise_rows
from greencore.training.models.loading import load_model, load_tokenizer
from greencore.training.recipe import build_optimizer_settings, build_rate_schedule, build_training_arguments
from greencore.training.run import Method, TrainingResult, fine_tune
from tests.greencore.training.test_run import Watch

STEPS = 40
OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "adamw", "adam_beta1": 0.8, "adam_beta2": 0.95, "weight_decay": 0.1},
    {"optimizer": "adafactor", "learning_rate": 1e-2, "weight_decay": 0.1},
    {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.8, "weight_decay": 0.1},
    {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.0},
]
# Every option is in one of these, and every optimiser with a schedule of its own.
RECIPES: list[dict[str, Any]] = [
    {**OPTIMIZERS[0], "scheduler": "cosine", "warmup_ratio": 0.3, "min_lr_ratio": 0.1, "micro_batch_size": 3},
    {**OPTIMIZERS[1], "scheduler": "warmup-stable-decay", "warmup_steps": 2, "max_steps": 7, "max_grad_norm": 0.0},
    {**OPTIMIZERS[2], "scheduler": "constant", "warmup_steps": 3, "max_grad_norm": 0.1, "micro_batch_size": "auto"},
]


def rates_of_transformers(name: str, warmup: int, **options: Any) -> list[float]:
    """The rates of a schedule of transformers, at a peak of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_scheduler(name, optimizer, warmup, STEPS, scheduler_specific_kwargs=options)
    found = []
    for _ in range(STEPS + 1):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("settings", "name", "warmup", "options"),
    [
        ({}, "linear", 0, {}),
        ({"warmup_steps": 5}, "linear", 5, {}),
        ({"warmup_ratio": 0.13}, "linear", math.ceil(0.13 * STEPS), {}),
        ({"scheduler": "cosine", "warmup_ratio": 0.1}, "cosine", 4, {}),
        (
            {"scheduler": "cosine", "warmup_steps": 4, "min_lr_ratio": 0.2},
            "cosine_with_min_lr",
            4,
            {"min_lr_rate": 0.2},
        ),
        ({"scheduler": "constant", "warmup_steps": 6}, "constant_with_warmup", 6, {}),
        (
            {"scheduler": "warmup-stable-decay", "warmup_steps": 4},
            "warmup_stable_decay",
            4,
            {"num_decay_steps": 8, "decay_type": "linear"},
        ),
    ],
)
def test_schedules_are_those_that_transformers_has(
    settings: dict[str, Any], name: str, warmup: int, options: dict[str, Any]
) -> None:
    share = build_rate_schedule(Hyperparameters(**settings), steps=STEPS)
    expected = rates_of_transformers(name, warmup, **options)
    assert [share(done) for done in range(STEPS + 1)] == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_a_linear_schedule_ends_at_its_least_rate() -> None:
    share = build_rate_schedule(Hyperparameters(min_lr_ratio=0.25, warmup_steps=10), steps=STEPS)
    assert [share(done) for done in (0, 5, 10, 25, STEPS)] == pytest.approx([0, 0.5, 1, 0.625, 0.25])


def test_a_warmup_may_last_the_whole_run_but_not_longer() -> None:
    share = build_rate_schedule(Hyperparameters(warmup_steps=STEPS), steps=STEPS)
    assert share(STEPS - 1) == pytest.approx(1 - 1 / STEPS)
    with pytest.raises(SettingUnsupported, match="given 41, but the run has 40 steps") as refused:
        build_rate_schedule(Hyperparameters(warmup_steps=STEPS + 1), steps=STEPS)
    assert refused.value.field == "warmup_steps"


@pytest.mark.parametrize("settings", OPTIMIZERS)
def test_the_predicted_update_is_that_of_the_optimisers_next_step(
    settings: dict[str, Any], model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    given, model = Hyperparameters(**settings), load_model(model_folder)
    trainer = Trainer(
        model=model,
        args=build_training_arguments(tmp_path, given, bf16=False),
        optimizer_cls_and_kwargs=build_optimizer_settings(given, model),
    )
    optimizer = trainer.create_optimizer()
    examples = tokenise_rows(rows, load_tokenizer(model_folder), max_length=64).examples
    for start in range(0, 12, 4):  # with state from the second step on
        optimizer.zero_grad()
        model(**Collator(0)(examples[start : start + 4])).loss.backward()
        gradients = {p: p.grad.clone() for p in model.parameters() if p.grad is not None}
        before = {p: p.detach().clone() for p in gradients}
        dry_run = OptimizerDryRun(optimizer)
        predicted = {p: dry_run.compute_update(p, gradient).clone() for p, gradient in gradients.items()}
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        optimizer.step()
        for parameter, update in predicted.items():
            assert torch.equal(before[parameter] + update, parameter.detach()) or torch.allclose(
                update, parameter.detach() - before[parameter], rtol=1e-5, atol=1e-8
            )
            assert update.abs().max() > 0


def test_weight_decay_is_applied_to_matrices_alone(model_folder: Path, tmp_path: Path) -> None:
    given, model = Hyperparameters(weight_decay=0.2), load_model(model_folder)
    trainer = Trainer(
        model=model,
        args=build_training_arguments(tmp_path, given, bf16=False),
        optimizer_cls_and_kwargs=build_optimizer_settings(given, model),
    )
    decayed = {
        id(p): group["weight_decay"] for group in trainer.create_optimizer().param_groups for p in group["params"]
    }
    assert {decayed[id(p)] for p in model.parameters() if p.dim() > 1} == {0.2}
    assert {decayed[id(p)] for p in model.parameters() if p.dim() == 1} == {0.0}


def run(
    model_folder: Path,
    rows: list[Row],
    folder: Path,
    listener: Watch | None = None,
    *,
    method: Method = "greentrainer",
    **settings: Any,
) -> TrainingResult:
    common = {"batch_size": 4, "max_length": 64, "eval_share": 0.2, "max_new_tokens": 1, "precision": "fp32"}
    return fine_tune(
        model_folder=model_folder,
        rows=rows,
        hyperparameters=Hyperparameters(**{**common, **settings}),
        rho=lambda epoch: (0.7, 0.5, 0.9)[epoch],
        method=method,
        folder=folder,
        listener=listener,
    )


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "artifacts" / "model.safetensors")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_of_any_recipe_resumes_bit_by_bit(
    recipe: dict[str, Any], model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    undisturbed = Watch()
    run(model_folder, rows, tmp_path / "undisturbed", undisturbed, **recipe)
    expected = tensors(tmp_path / "undisturbed")
    # Within an epoch, and before the last step of `max_steps`, which is within one too.
    stops = (2, len(undisturbed.losses) - 2)
    losses = []
    for stop in stops:
        watch = Watch(stop_after=stop)
        assert not run(model_folder, rows, tmp_path / "stopped", watch, **recipe).completed
        losses += watch.losses
    last = Watch()
    assert run(model_folder, rows, tmp_path / "stopped", last, **recipe).completed
    found = tensors(tmp_path / "stopped")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert losses + last.losses == undisturbed.losses


def test_max_steps_ends_the_run_within_an_epoch_with_everything_that_an_epochs_end_has(
    model_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    watch = Watch()
    # 14 rows in steps of 4: 4 steps an epoch, and 2 of the second.
    result = run(model_folder, rows, tmp_path, watch, max_steps=6, learning_rate=1e-2)
    assert result.completed
    assert len(watch.losses) == 6
    assert [report.epoch for report in watch.epochs] == [0, 1]
    assert watch.epochs[1].full_flops < 0.7 * watch.epochs[0].full_flops
    checkpoint = CheckpointFolder(tmp_path).find_newest()
    assert checkpoint is not None
    assert json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] == 6
    again = Watch()
    assert run(model_folder, rows, tmp_path, again, max_steps=6, learning_rate=1e-2).completed
    assert not again.losses


def test_without_clipping_a_diverging_run_is_still_noticed(model_folder: Path, rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training has diverged"):
        run(
            model_folder,
            rows,
            tmp_path,
            method="full",
            optimizer="sgd",
            learning_rate=1.0,
            momentum=0.99,
            max_grad_norm=0,
            epochs=60,
            eval_share=0,
        )
