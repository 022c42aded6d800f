"""Optimiser, learning-rate schedule and Trainer arguments of a run, from its hyperparameters."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import Adafactor, TrainingArguments

from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.run_length import count_warmup_steps
from greencore.training.models.precision import choose_device

STABLE_SHARE = 0.8  # of the steps, after which "warmup-stable-decay" falls
# The types of device whose AdamW has a kernel that steps all tensors at once, without copies of them.
FUSED_DEVICES = ("cuda", "cpu")


def build_training_arguments(
    folder: Path, hyperparameters: Hyperparameters, *, bf16: bool, **settings: Any
) -> TrainingArguments:
    """Return the arguments of a run's Trainer, with `settings` in addition.

    Optimiser and schedule are those of `build_optimizer_settings` and `build_scheduler`. A batch of the Trainer is the
    rows of an optimiser step.
    """
    where = choose_device()
    length = (
        {"num_train_epochs": hyperparameters.epochs}
        if hyperparameters.max_steps is None
        else {"max_steps": hyperparameters.max_steps}
    )
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=hyperparameters.batch_size,
        learning_rate=hyperparameters.learning_rate,
        weight_decay=hyperparameters.weight_decay,
        max_grad_norm=hyperparameters.max_grad_norm,
        seed=hyperparameters.seed,
        bf16=bf16,
        use_cpu=where.type == "cpu",
        dataloader_pin_memory=where.type == "cuda",
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        **length,
        **settings,
    )


def build_optimizer_settings(
    hyperparameters: Hyperparameters, model: torch.nn.Module
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Return the optimiser's class and options for the Trainer, which adds weight decay to the groups that take it.

    Adafactor takes the learning rate as it is given, as in transformers' Trainer, neither relative to the weights nor
    by its own schedule.
    """
    rate = {"lr": hyperparameters.learning_rate}
    if hyperparameters.optimizer == "sgd":
        return torch.optim.SGD, {**rate, "momentum": hyperparameters.sgd_momentum}
    if hyperparameters.optimizer == "adafactor":
        return Adafactor, {**rate, "scale_parameter": False, "relative_step": False}
    betas = (hyperparameters.adam_beta1, hyperparameters.adam_beta2)
    fused = _supports_fused(model.parameters())
    return torch.optim.AdamW, {**rate, "betas": betas, "eps": 1e-8, **({"fused": True} if fused else {})}


def build_scheduler(optimizer: torch.optim.Optimizer, hyperparameters: Hyperparameters, *, steps: int) -> LambdaLR:
    """Build the learning-rate schedule of a run of `steps` optimiser steps. Raises `SettingUnsupported`."""
    return LambdaLR(optimizer, build_rate_schedule(hyperparameters, steps=steps))


def build_rate_schedule(hyperparameters: Hyperparameters, *, steps: int) -> Callable[[int], float]:
    """Return the learning rate's share of its peak, in [0, 1], as a function of the finished steps (from 0).

    It rises linearly over the warm-up and then falls to `min_lr_ratio` at `steps`: along a line, half a cosine, or
    along a line over the last fifth of the steps; or it stays. Raises `SettingUnsupported` for too long a warm-up.
    """
    warmup = count_warmup_steps(hyperparameters, steps=steps)
    least, kind = hyperparameters.min_lr_ratio, hyperparameters.scheduler
    falls_from = max(warmup, math.floor(STABLE_SHARE * steps)) if kind == "warmup-stable-decay" else warmup

    def compute_share(done: int) -> float:
        if done < warmup:
            return done / warmup
        if kind == "constant":
            return 1.0
        left = (steps - done) / max(1, steps - falls_from)
        left = min(1.0, max(0.0, left))
        if kind == "cosine":
            left = 0.5 * (1.0 + math.cos(math.pi * (1.0 - left)))
        return least + (1.0 - least) * left

    return compute_share


def _supports_fused(parameters: Iterable[torch.nn.Parameter]) -> bool:
    return all(parameter.device.type in FUSED_DEVICES and parameter.is_floating_point() for parameter in parameters)
