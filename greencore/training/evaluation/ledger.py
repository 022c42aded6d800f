"""Ledger of the evaluations during a run: when one is due, which was the best, and whether the run ends early."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from greencore.settings.hyperparameters import EarlyStopping, Hyperparameters
from greencore.training.evaluation.evaluate import Evaluation

LEDGER_KEY = "evaluations"  # of the ledger in the Trainer's own state, which every checkpoint holds as JSON


@dataclass(frozen=True)
class EvaluationReport:
    """One evaluation during a run: after `step` optimiser steps and `epoch` epochs (a fraction within one).

    Its ROUGE is that of `rouge_rows` rows. `epoch_ended` is the number, from 1, of the epoch that ended with the step;
    None within an epoch.
    """

    step: int
    epoch: float
    evaluation: Evaluation
    rouge_rows: int
    epoch_ended: int | None


class EvaluationLedger:
    """State of a run's evaluations, of which the lowest loss is the best; the first of equal ones.

    With early stopping a gain is a loss that is lower than that of the last gain by more than `min_gain`, and the run
    ends after `patience` evaluations without one.
    """

    def __init__(self, settings: Hyperparameters) -> None:
        self._settings = settings
        self.last_step = 0
        self.last_loss: float | None = None
        self.best_step: int | None = None
        self.best_loss: float | None = None
        self._gain_loss: float | None = None
        self._without_gain = 0
        self.stopped_early: str | None = None

    def is_due(self, step: int, *, max_steps: int, epochs_done: int | None) -> bool:
        """Return whether to evaluate after `step`, with which that many epochs ended; None within an epoch."""
        if step <= self.last_step:
            return False
        if step >= max_steps:
            return True
        every = self._settings.eval_every
        if self._settings.eval_unit == "steps":
            return step % every == 0
        return epochs_done is not None and epochs_done % every == 0

    def add(self, step: int, loss: float, *, max_steps: int) -> None:
        """Record the loss of an evaluation, and whether the run ends early with it: `stopped_early` is the reason."""
        self.last_step, self.last_loss = step, loss
        if self.best_loss is None or loss < self.best_loss:
            self.best_step, self.best_loss = step, loss
        stopping = self._settings.early_stopping
        if self._gain_loss is None or loss < self._gain_loss - (stopping.min_gain if stopping else 0.0):
            self._gain_loss, self._without_gain = loss, 0
        else:
            self._without_gain += 1
        if stopping is not None and self._without_gain >= stopping.patience and step < max_steps:
            self.stopped_early = self._explain_stop(stopping)

    @property
    def kept_step(self) -> int | None:
        """The step whose checkpoint is kept for the result; None where the result is that of the last step."""
        return self.best_step if self._settings.keep == "best" else None

    def _explain_stop(self, stopping: EarlyStopping) -> str:
        gain = f" by more than {stopping.min_gain:g}" if stopping.min_gain else ""
        evaluations = "1 evaluation" if self._without_gain == 1 else f"{self._without_gain} evaluations"
        return (
            f"stopped early after step {self.last_step}: the evaluation loss has not fallen{gain} in "
            f"{evaluations}; it was lowest after step {self.best_step}, {self.best_loss:.4g}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the ledger as JSON."""
        return {
            "last_step": self.last_step,
            "last_loss": self.last_loss,
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "gain_loss": self._gain_loss,
            "without_gain": self._without_gain,
            "kept_step": self.kept_step,
            "stopped_early": self.stopped_early,
        }

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Continue with the state of `to_json`."""
        self.last_step, self.last_loss = stored["last_step"], stored["last_loss"]
        self.best_step, self.best_loss = stored["best_step"], stored["best_loss"]
        self._gain_loss, self._without_gain = stored["gain_loss"], stored["without_gain"]
        self.stopped_early = stored["stopped_early"]
