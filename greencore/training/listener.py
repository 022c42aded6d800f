"""Listener interface of a run's progress and stops, and its adapter to the Trainer's callbacks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from greencore.backprop import TensorCost
from greencore.training.batches.micro_batches import HalvedMicroBatch
from greencore.training.evaluation.ledger import EvaluationLedger, EvaluationReport
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.methods.selection_callback import SelectionCallback
from greencore.training.processes import agree, count_processes, get_rank


class TrainingListener:
    """Interface for a run's progress and stops; every method has a default that does nothing."""

    def on_training_started(
        self, *, steps: int, steps_done: int, epochs_done: int, within_epoch: bool, device: str, precision: str
    ) -> None:
        """Handle the start of training, or its continuation after a checkpoint's steps and finished epochs.

        `within_epoch`: the checkpoint was written within an epoch, which continues.
        """

    def on_micro_batch_chosen(self, *, rows: int, reason: str) -> None:
        """Handle the micro-batch that was measured to fit into the device's memory; before `on_training_started`."""

    def on_micro_batch_halved(self, halved: HalvedMicroBatch) -> None:
        """Handle a step that did not fit into memory, which is repeated in micro-batches of half the rows."""

    def on_tensors_profiled(self, costs: Sequence[TensorCost]) -> None:
        """Handle the costs of the trainable tensors, from output to input, after `on_training_started`.

        The FLOPs are those of the longest step.
        """

    def on_epoch_started(self, epoch: int) -> None:
        """Handle the first step of an epoch (from 0); not called for an epoch that a resumed run continues."""

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        """Handle a finished optimiser step and its loss."""

    def on_epoch_finished(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        """Handle the end of an epoch, before its checkpoint: a run lost in between repeats the epoch and this call.

        `eval_loss` is None where the epoch's last step is not evaluated yet, or not at all.
        """

    def on_evaluation_started(self) -> None:
        """Handle the start of an evaluation: before, during or after training."""

    def on_evaluation_ended(self) -> None:
        """Handle the end of an evaluation, complete or stopped."""

    def on_evaluated(self, report: EvaluationReport) -> None:
        """Handle a complete evaluation during training, before the step's checkpoint and `on_epoch_finished`.

        Where `should_end_after` ends the run at a step that is not due for an evaluation, it is made after both, so
        that the best evaluation is chosen among all. A run lost before the checkpoint repeats this call.
        """

    def on_stopped_early(self, *, step: int, reason: str) -> None:
        """Handle the end of training by early stopping, after `on_evaluated`."""

    def on_best_missing(self, *, step: int) -> None:
        """Handle a missing checkpoint of the best evaluation: the result is that of the last step."""

    def should_stop(self) -> bool:
        """Return whether to stop here with a checkpoint, to be resumed later; called after every step.

        Also called before every forward pass of an evaluation, which a stop ends.
        """
        return False

    def should_end_after(self, epoch: int) -> bool:
        """Return whether the run ends with this epoch (from 0); called after every epoch but the last."""
        return False


def share_decisions(listener: TrainingListener) -> TrainingListener:
    """Return the listener of this process of a run: the first one's reports and decides, the others do as it says."""
    if count_processes() == 1:
        return listener
    return _SharedListener(listener if get_rank() == 0 else TrainingListener())


class _SharedListener(TrainingListener):
    """Passes every call on to a listener, and the first process's decisions to all."""

    def __init__(self, listener: TrainingListener) -> None:
        self._listener = listener

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            return getattr(self._listener, name)
        return super().__getattribute__(name)

    def should_stop(self) -> bool:
        return agree(self._listener.should_stop())

    def should_end_after(self, epoch: int) -> bool:
        return agree(self._listener.should_end_after(epoch))


class TrainingStopped(Exception):
    """The listener stopped a run, which a later call resumes; of an evaluation that it stopped nothing is saved."""


@contextmanager
def raise_on_stop(model: PreTrainedModel, listener: TrainingListener) -> Iterator[None]:
    """Ask the listener before each forward pass of the block whether to stop. Raises `TrainingStopped`."""

    def check_stop(*_: Any) -> None:
        if listener.should_stop():
            raise TrainingStopped

    # encoder and decoder have separate embedding modules, which may share their weights
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    hooks = [module.register_forward_pre_hook(check_stop) for module in embeddings]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def announce_evaluation(model: PreTrainedModel, listener: TrainingListener) -> Iterator[None]:
    """Tell the listener of the evaluation in the block, which it may stop. Raises `TrainingStopped`."""
    listener.on_evaluation_started()
    try:
        with raise_on_stop(model, listener):
            yield
    finally:
        listener.on_evaluation_ended()


class ListenerCallback(TrainerCallback):
    """Trainer callback that forwards events to the listener and stops where the listener asks."""

    def __init__(self, listener: TrainingListener, adaptive: SelectionCallback, evaluations: EvaluationLedger) -> None:
        self._listener, self._adaptive, self._evaluations = listener, adaptive, evaluations
        self.ended_early = False
        self._steps = 0  # of the whole run, also where it ends early

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        half = kwargs["model"].dtype == torch.bfloat16
        self._steps = state.max_steps
        precision = "bf16 with fp32 masters" if half else "bf16 autocast" if args.bf16 else "fp32"
        self._listener.on_training_started(
            steps=state.max_steps,
            steps_done=state.global_step,
            epochs_done=count_finished_epochs(state),
            within_epoch=is_within_epoch(state),
            device=args.device.type,
            precision=precision,
        )
        self._listener.on_tensors_profiled(self._adaptive.tensor_costs)

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        if not is_within_epoch(state):
            self._listener.on_epoch_started(count_finished_epochs(state))

    def on_log(self, args: TrainingArguments, state: TrainerState, *_: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self._listener.on_step_finished(done=state.global_step, steps=self._steps, loss=logs["loss"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step < state.max_steps and self._listener.should_stop():
            control.should_training_stop = True
            # After an epoch's last step its own checkpoint follows `on_epoch_finished`.
            control.should_save = is_within_epoch(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if is_within_epoch(state):
            control.should_save = False  # stopped within the epoch: its checkpoint is already written
            return
        report = self._adaptive.epochs[-1]
        evaluated = self._evaluations.last_step == state.global_step
        eval_loss = self._evaluations.last_loss if evaluated else None
        self._listener.on_epoch_finished(report, train_loss=_train_loss(state, report), eval_loss=eval_loss)
        if state.global_step < state.max_steps and self._listener.should_end_after(report.epoch):
            control.should_training_stop = self.ended_early = True


def _train_loss(state: TrainerState, report: EpochReport) -> float:
    """Return the mean loss of an epoch's steps, including those before a stop, from the checkpointed log."""
    first = report.selections[0].step
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry and entry["step"] > first]
    return float(sum(losses) / len(losses)) if losses else float("nan")


def count_finished_epochs(state: TrainerState) -> int:
    """Return the number of finished epochs; the last step of a run ends its epoch."""
    epochs = state.epoch or 0.0
    return round(epochs) if not _is_fraction(epochs) else int(epochs) + _is_last_step(state)


def is_within_epoch(state: TrainerState) -> bool:
    """Return whether an epoch has begun and not finished."""
    return _is_fraction(state.epoch or 0.0) and not _is_last_step(state)


def _is_fraction(epochs: float) -> bool:
    return abs(epochs - round(epochs)) > 1e-6


def _is_last_step(state: TrainerState) -> bool:
    """Return whether the run's last step is done, which `max_steps` may put within the rows of an epoch."""
    return 0 < state.max_steps <= state.global_step
