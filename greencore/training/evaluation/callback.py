"""Trainer callback that evaluates during a run, has the best checkpoint written, and ends the run early."""

from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.evaluation.evaluator import Evaluator
from greencore.training.evaluation.ledger import LEDGER_KEY, EvaluationLedger, EvaluationReport
from greencore.training.finite_checks import check_held_out_loss
from greencore.training.listener import (
    TrainingListener,
    TrainingStopped,
    announce_evaluation,
    count_finished_epochs,
    is_within_epoch,
)
from greencore.training.methods.modes import use_cache_as
from greencore.training.methods.selection_callback import get_callback_states


class EvaluationCallback(TrainerCallback):
    """Evaluates where the ledger says so, before the step's checkpoint, which holds the ledger.

    An evaluation that the listener stops is repeated from that checkpoint: its ledger has not recorded the step. Where
    the run ends early, the Trainer's last step becomes the present one, so that the checkpoint is that of a complete
    run. `use_cache` is the model configuration's own, which the Trainer switches off and generation needs.
    """

    def __init__(
        self, listener: TrainingListener, evaluator: Evaluator, settings: Hyperparameters, *, use_cache: bool | None
    ) -> None:
        self._listener, self._evaluator, self._use_cache = listener, evaluator, use_cache
        self.ledger = EvaluationLedger(settings)

    def restore(self, state: TrainerState) -> None:
        """Continue with the ledger of a checkpoint; one of an earlier version has none, and starts a new one."""
        if (stored := get_callback_states(state).get(LEDGER_KEY)) is not None:
            self.ledger.restore(stored)
        else:
            self.ledger.last_step = state.global_step

    def is_due(self, state: TrainerState) -> bool:
        """Return whether the present step is still to be evaluated."""
        due = self.ledger.is_due(state.global_step, max_steps=state.max_steps, epochs_done=_find_ended_epoch(state))
        return due and bool(self._evaluator.rows)

    def evaluate(self, model: PreTrainedModel, state: TrainerState) -> None:
        """Evaluate the model after the present step. Raises `TrainingStopped`, and `NotFinite` for the loss."""
        with announce_evaluation(model, self._listener), use_cache_as(model.config, self._use_cache):
            found = self._evaluator.evaluate_in_run(model)
        check_held_out_loss(found.loss, f"after step {state.global_step}")
        self.ledger.add(state.global_step, found.loss, max_steps=state.max_steps)
        self._listener.on_evaluated(
            EvaluationReport(
                step=state.global_step,
                epoch=float(state.epoch or 0.0),
                evaluation=found,
                rouge_rows=len(self._evaluator.rouge_rows),
                epoch_ended=_find_ended_epoch(state),
            )
        )
        if self.ledger.stopped_early is not None:
            self._listener.on_stopped_early(step=state.global_step, reason=self.ledger.stopped_early)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        get_callback_states(state)[LEDGER_KEY] = self.ledger.to_json()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if is_within_epoch(state):
            self._evaluate_if_due(kwargs["model"], state, control)
            best = self.ledger.kept_step == state.global_step
            control.should_save = control.should_save or (
                best and is_within_epoch(state)
            )  # else saved as the epoch ends

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not is_within_epoch(state):
            self._evaluate_if_due(kwargs["model"], state, control)

    def _evaluate_if_due(self, model: PreTrainedModel, state: TrainerState, control: TrainerControl) -> None:
        if not self.is_due(state):
            return
        try:
            self.evaluate(model, state)
        except TrainingStopped:
            control.should_training_stop = True
            control.should_save = control.should_save or is_within_epoch(state)
            return
        get_callback_states(state)[LEDGER_KEY] = self.ledger.to_json()
        if self.ledger.stopped_early is not None:
            state.max_steps = state.global_step
            control.should_training_stop = True


def _find_ended_epoch(state: TrainerState) -> int | None:
    """Return the number of the epoch, from 1, that ends with the present step; None within an epoch."""
    return None if is_within_epoch(state) else count_finished_epochs(state)
