"""Time and energy of a run's steps: those that measure importance apart from the others."""

import time
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks.gpu.gauges import Gauge, Reading

WARM_UP_STEPS = 2  # of the first epoch: kernels are chosen, and memory is requested from the driver


@dataclass(frozen=True)
class Window:
    """Consecutive steps, and the seconds and joules that they took together."""

    steps: int
    took: Reading


class StepWindows(TrainerCallback):
    """Reads the gauge at the ends of each epoch's first step, and of all its others together.

    In the first epoch the second window begins after `WARM_UP_STEPS`. Ends the run `seconds` after its first epoch has
    begun. Its callbacks must be called before the method's own, which trace the model before the first epoch.
    `epoch_steps` are the steps of the last epoch.
    """

    def __init__(self, gauge: Gauge, *, seconds: float) -> None:
        self._gauge, self._seconds = gauge, seconds
        self._epoch, self.epoch_steps = -1, 0
        self._until = self._began = 0.0
        self._opened = Reading(0, None)
        self.tracing_seconds = 0.0
        self.firsts: list[Window] = []
        self.others: list[Window] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        self._epoch, self.epoch_steps, self._opened = self._epoch + 1, 0, self._gauge.read()
        if self._epoch == 0:
            self.tracing_seconds = self._opened.seconds - self._began
            self._until = time.monotonic() + self._seconds

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        self.epoch_steps += 1
        if self.epoch_steps == 1:
            reading = self._gauge.read()
            self.firsts.append(Window(1, reading.since(self._opened)))
            self._opened = reading
        elif self.epoch_steps == self._skipped:
            self._opened = self._gauge.read()
        if time.monotonic() >= self._until:
            control.should_training_stop = True
        return control

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        if self.epoch_steps > self._skipped:
            self.others.append(Window(self.epoch_steps - self._skipped, self._gauge.read().since(self._opened)))

    @property
    def _skipped(self) -> int:
        """Steps at the epoch's start that are not in the window of the others."""
        return WARM_UP_STEPS if self._epoch == 0 else 1

    @property
    def steps(self) -> int:
        """Steps in the windows of the others."""
        return sum(window.steps for window in self.others)

    @property
    def seconds_per_step(self) -> float | None:
        """Mean seconds of a step that measures nothing; None where there was none."""
        return sum(window.took.seconds for window in self.others) / self.steps if self.steps else None

    @property
    def joules_per_step(self) -> float | None:
        """Mean joules of such a step; None without an energy counter."""
        joules = [window.took.joules for window in self.others if window.took.joules is not None]
        return sum(joules) / self.steps if joules else None

    @property
    def probe_seconds(self) -> float | None:
        """Seconds of the last epoch's first step beyond another's; None where the first epoch was the last."""
        usual = self.seconds_per_step
        return None if usual is None or len(self.firsts) < 2 else self.firsts[-1].took.seconds - usual
