"""Length of a run in optimiser steps and epochs, and of its warm-up, from its hyperparameters and rows; no torch."""

import math
from dataclasses import dataclass

from greencore.settings.hyperparameters import MAX_EPOCHS, Hyperparameters, SettingUnsupported


@dataclass(frozen=True)
class RunLength:
    """Optimiser steps of a run, and of a whole epoch; `max_steps` may end the run within its last epoch."""

    steps: int
    steps_per_epoch: int

    @property
    def epochs(self) -> int:
        """Number of epochs that begin."""
        return -(-self.steps // self.steps_per_epoch)

    @property
    def whole_epochs(self) -> float:
        """Length in whole epochs, of which the last may be a fraction."""
        return self.steps / self.steps_per_epoch

    @property
    def last_epoch_share(self) -> float:
        """Share of the last epoch's steps that run, in (0, 1]."""
        return self.whole_epochs - (self.epochs - 1)


def compute_run_length(hyperparameters: Hyperparameters, *, training_rows: int) -> RunLength:
    """Compute the length of a run on this many rows."""
    per_epoch = -(-training_rows // hyperparameters.batch_size)
    if hyperparameters.epochs is not None:
        return RunLength(hyperparameters.epochs * per_epoch, per_epoch)
    assert hyperparameters.max_steps is not None
    return RunLength(hyperparameters.max_steps, per_epoch)


def check_epoch_count(hyperparameters: Hyperparameters, *, training_rows: int) -> None:
    """Raise `SettingUnsupported` where `max_steps` are more epochs of these rows than a run may have."""
    epochs = compute_run_length(hyperparameters, training_rows=training_rows).epochs
    if epochs > MAX_EPOCHS:
        given = f"given {hyperparameters.max_steps}"
        message = f"{given}: that is {epochs} epochs of {training_rows} rows, more than {MAX_EPOCHS}"
        raise SettingUnsupported("max_steps", message)


def count_warmup_steps(hyperparameters: Hyperparameters, *, steps: int) -> int:
    """Count the steps of the warm-up. Raises `SettingUnsupported` where it is longer than the run of `steps`."""
    if hyperparameters.warmup_steps is None:
        return math.ceil((hyperparameters.warmup_ratio or 0.0) * steps)
    if hyperparameters.warmup_steps > steps:
        message = f"given {hyperparameters.warmup_steps}, but the run has {steps} steps"
        raise SettingUnsupported("warmup_steps", message)
    return hyperparameters.warmup_steps
