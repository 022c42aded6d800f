"""Who is told how a run comes along, and how the Trainer's events reach them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from greencore.backprop import TensorCost
from greencore.training.evaluation.evaluator import Evaluator
from greencore.training.finite_checks import check_held_out_loss
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.methods.selection_callback import SelectionCallback


class TrainingListener:
    """Told how a run comes along; every method may be left as it is."""

    def on_training_started(
        self, *, steps: int, steps_done: int, epochs_done: int, device: str, precision: str
    ) -> None:
        """Training begins, or goes on after the steps and whole epochs that a checkpoint holds."""

    def on_tensors_profiled(self, costs: Sequence[TensorCost]) -> None:
        """Told after `on_training_started`: the tensors that may be trained, from output to input, with a longest
        step's FLOPs.
        """

    def on_epoch_started(self, epoch: int) -> None:
        """An epoch (numbered from 0) begins with its first step; one that is gone on with is not told again."""

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        """An optimiser step is done; `loss` is that step's."""

    def on_epoch_finished(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        """An epoch is over, and its checkpoint comes next: what is lost in between is trained and told again.

        `eval_loss` is None where no rows are held out, and where the run was stopped while it was measured.
        """

    def should_stop(self) -> bool:
        """Asked after every step: whether to stop here, with a checkpoint, and leave the rest for later.

        Asked before every forward pass of an evaluation, too, which a stop breaks off.
        """
        return False

    def should_end_after(self, epoch: int) -> bool:
        """Asked after every epoch (numbered from 0) but the last: whether the run is over with it."""
        return False


class TrainingStopped(Exception):
    """The listener has stopped a run where there was nothing to write down."""


@contextmanager
def raise_on_stop(model: PreTrainedModel, listener: TrainingListener) -> Iterator[None]:
    """Let the listener break off what the block does with the model, before any forward pass. Raises
    `TrainingStopped`.
    """

    def ask(*_: Any) -> None:
        if listener.should_stop():
            raise TrainingStopped

    # an encoder's and a decoder's are modules of their own, which may share their weights
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    hooks = [module.register_forward_pre_hook(ask) for module in embeddings]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class ListenerCallback(TrainerCallback):
    """Passes the Trainer's events on to the listener, and the listener's wish to stop back."""

    def __init__(self, listener: TrainingListener, adaptive: SelectionCallback, evaluator: Evaluator) -> None:
        self._listener, self._adaptive, self._evaluator = listener, adaptive, evaluator
        self.ended_early = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        precision = "bf16 autocast" if args.bf16 else "fp32"
        self._listener.on_training_started(
            steps=state.max_steps,
            steps_done=state.global_step,
            epochs_done=count_whole_epochs(state),
            device=args.device.type,
            precision=precision,
        )
        self._listener.on_tensors_profiled(self._adaptive.tensor_costs)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not is_within_epoch(state):
            self._listener.on_epoch_started(count_whole_epochs(state))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self._listener.on_step_finished(done=state.global_step, steps=state.max_steps, loss=logs["loss"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step < state.max_steps and self._listener.should_stop():
            control.should_training_stop = True
            # After an epoch's last step its own checkpoint follows, once the epoch has been told.
            control.should_save = is_within_epoch(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if is_within_epoch(state):
            control.should_save = False  # stopped within the epoch: its checkpoint is there already
            return
        report = self._adaptive.epochs[-1]
        try:
            with raise_on_stop(kwargs["model"], self._listener):
                eval_loss = self._evaluator.loss(kwargs["model"])
        except TrainingStopped:
            eval_loss = None
            control.should_training_stop = True
        if eval_loss is not None:
            check_held_out_loss(eval_loss, f"after epoch {report.epoch + 1} (step {state.global_step})")
        self._listener.on_epoch_finished(report, train_loss=_train_loss(state, report), eval_loss=eval_loss)
        if state.global_step < state.max_steps and self._listener.should_end_after(report.epoch):
            control.should_training_stop = self.ended_early = True


def _train_loss(state: TrainerState, report: EpochReport) -> float:
    """The mean loss of an epoch's steps, those before a stop included, which the checkpoint has kept."""
    first = report.selections[0].step
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry and entry["step"] > first]
    return float(sum(losses) / len(losses)) if losses else float("nan")


def count_whole_epochs(state: TrainerState) -> int:
    """How many epochs are over."""
    return int((state.epoch or 0.0) + 1e-6)


def is_within_epoch(state: TrainerState) -> bool:
    """Whether the next step goes on with an epoch that has begun."""
    return abs((state.epoch or 0.0) - round(state.epoch or 0.0)) > 1e-6
