"""Runs one fine-tuning of an arm with a plain Trainer, and measures its FLOPs, time and energy."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any, Literal, cast

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback

from greencore.backprop.master_weights import MasterWeights
from greencore.energy import EnergyInterval, EnergyMeter
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training import BaselineCallback, GreenTrainerCallback
from greencore.training.data.tokenisation import Collator, Example
from greencore.training.methods.adapters import with_adapter
from greencore.training.methods.baselines import Baseline
from greencore.training.models.loading import load_model, resolve_model_folder
from greencore.training.models.precision import choose_device, supports_bf16
from greencore.training.recipe import build_training_arguments
from runtime.catalogue import read_catalogue

MODEL = "SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Arm:
    """Arm of a comparison: a baseline, or adaptive backpropagation at ρ with options of its callback.

    With `bf16_weights` the weights are in bfloat16, with float32 masters of those that are trained.
    """

    name: str
    method: Baseline | Literal["greentrainer"]
    rho: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    bf16_weights: bool = False


@dataclass(frozen=True)
class TrainingMeter:
    """Time and energy of a training, and how the energy was measured."""

    seconds: float
    cpu_seconds: float
    energy_kwh: float
    energy_method: str


@dataclass(frozen=True)
class TrainingCost(TrainingMeter):
    """Cost of a run. A multiply-accumulate counts as 2 FLOPs; `full_flops` are those with every tensor trained.

    `same_tensors` is the mean Jaccard index of an epoch's tensors and the next one's; 1 where there is one epoch.
    """

    steps: int
    flops: int
    probe_flops: int
    full_flops: int
    probe_seconds: float
    same_tensors: float

    @property
    def share(self) -> float:
        """FLOPs of steps and probes, as a share of full fine-tuning for as many steps."""
        return (self.flops + self.probe_flops) / self.full_flops


def model_folder() -> Path:
    """Return the folder of the model that all arms train, converted on first use."""
    return resolve_model_folder(read_catalogue()[MODEL].source, Path("var/models") / MODEL)


def run_fine_tuning(
    arm: Arm,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    learning_rate: float,
    seed: int,
    steps: int,
    batch_size: int,
    before: Sequence[TrainerCallback] = (),
) -> tuple[PreTrainedModel, TrainingCost]:
    """Train for `steps` optimiser steps as a run does (and the paper, §4): AdamW, linear schedule, weight decay 0.01.

    The callbacks `before` are called before the arm's own.
    """
    transformers.set_seed(seed)
    where = choose_device()
    model = load_model(folder, torch.bfloat16 if arm.bf16_weights else torch.float32)
    model.to(where)  # type: ignore[arg-type]
    if arm.method in ("lora", "prefix"):
        model = cast(PreTrainedModel, with_adapter(arm.method, model))
    callback = (
        GreenTrainerCallback(arm.rho, **arm.options) if arm.method == "greentrainer" else BaselineCallback(arm.method)
    )
    trainer = build_trainer(
        model,
        tokenizer,
        examples,
        Hyperparameters(learning_rate=learning_rate, batch_size=batch_size, seed=seed, max_steps=steps, epochs=None),
        [*before, callback],
        bf16=supports_bf16(where) and not arm.bf16_weights,
    )
    if arm.bf16_weights:
        trainer.optimizer = MasterWeights(trainer.create_optimizer())
    meter = meter_training(trainer)
    epochs = callback.epochs
    chosen = [set(epoch.tensors) for epoch in epochs]
    return model, TrainingCost(
        steps=trainer.state.global_step,
        flops=sum(epoch.flops for epoch in epochs),
        probe_flops=sum(epoch.probe_flops for epoch in epochs),
        full_flops=sum(epoch.full_flops for epoch in epochs),
        probe_seconds=sum(epoch.probe_seconds for epoch in epochs),
        same_tensors=mean([len(one & other) / len(one | other) for one, other in pairwise(chosen)] or [1.0]),
        **asdict(meter),
    )


def build_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    recipe: Hyperparameters,
    callbacks: Sequence[TrainerCallback],
    *,
    bf16: bool = False,
    collator: Callable[..., Any] | None = None,
) -> Trainer:
    """Build a plain Trainer of a recipe, which stores and logs nothing; its default collator pads."""
    assert isinstance(tokenizer.pad_token_id, int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of schedules and pinning, which would clutter the output
        trainer = Trainer(
            model=model,
            args=build_training_arguments(
                Path("build/benchmark"), recipe, bf16=bf16, save_strategy="no", logging_strategy="no"
            ),
            train_dataset=cast(Any, examples),
            data_collator=collator or Collator(tokenizer.pad_token_id),
            callbacks=list(callbacks),
        )
    trainer.remove_callback(PrinterCallback)
    return trainer


def meter_training(trainer: Trainer) -> TrainingMeter:
    """Train to the end, and return what it took."""
    metered = list[EnergyInterval]()
    with warnings.catch_warnings(), EnergyMeter(metered.append):
        warnings.simplefilter("ignore")
        started, cpu_started = time.perf_counter(), time.process_time()
        trainer.train()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return TrainingMeter(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        energy_kwh=sum(interval.energy_kwh for interval in metered),
        energy_method=" · ".join(sorted({f"CPU {i.cpu_method}, GPU {i.gpu_method}" for i in metered})),
    )
