"""Trainer callbacks for adaptive backpropagation and for the baselines, for any `transformers.Trainer`."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import torch
from transformers import TrainerState, TrainingArguments

from greencore.backprop import BudgetTooSmall, NotFinite, Selection
from greencore.backprop.importance import importance_of_gradients
from greencore.model_names import TensorRoles
from greencore.settings.method_settings import AdaptiveSettings, Metric
from greencore.training.batches.micro_batches import get_rows_computed_at_once
from greencore.training.finite_checks import explain_non_finite
from greencore.training.methods.baselines import Baseline, list_trained_tensors
from greencore.training.methods.epoch_ledger import EpochLedger, EpochReport, Measurement, Reselection
from greencore.training.methods.probe import ImportanceProbe, count_probing_processes, get_loss_scale
from greencore.training.methods.probe_charge import ProbeCharge
from greencore.training.methods.selection_callback import (
    STATE_KEY,
    OptimizerStatePolicy,
    SelectionCallback,
    get_callback_states,
)
from greencore.training.methods.tensor_patterns import match_tensor_patterns
from greencore.training.processes import agree, sum_over_processes

RhoSchedule = float | Callable[[int], float]


class GreenTrainerCallback(SelectionCallback):
    """Trains, in each epoch, the most important tensors within a share ρ of full fine-tuning's FLOPs (paper §3).

    `rho` is in (0, 1], or a function from the epoch's number (from 0) to such a value. At each epoch's start, and with
    `reselect_every` again after that many optimiser steps, the importance of every tensor within the budget's reach is
    probed (§3.2), and the best set within ρ is selected (§3.3). Every step stays within ρ, whatever its length, in all
    FLOPs and in the matrix products alone.

    Without `probe_batches` the next optimiser step is the probe: it computes the gradients of all tensors within reach,
    as a step does (dropout included), importance is measured from them, and those of the selected tensors are clipped
    by their own norm and applied. What this takes beyond a step of the selected tensors counts as the probe's. While it
    runs `args.max_grad_norm` is 0, since the Trainer clips before callbacks see the gradients. With `probe_batches`
    importance is measured before that step, averaged over so many batches of training rows, whose gradients are
    discarded: it takes less memory, since each is freed as it arrives. With `charge_probe` the probes' FLOPs are taken
    out of the epoch's budget, so that probes and steps together stay within ρ; without it they are reported separately.

    `never_train` and `always_train` are patterns of tensor names (`greencore.training.methods.tensor_patterns`). The
    tensors of the first stay frozen, at ρ = 1 too, and get no budget; those of the second are in every selection, and
    the rest of ρ goes to the best others. Raises `greencore.settings.hyperparameters.SettingUnsupported` as training
    begins for a pattern that matches no tensor that the optimiser holds, or two that contradict each other.

    `optimizer_state` is the treatment of a deselected tensor's optimiser state: "release" frees it, and a tensor that
    is selected again starts with fresh moments; "host" keeps it in host memory; "keep" leaves it on the device. Raises
    `greencore.backprop.BudgetTooSmall` at the start of an epoch whose ρ is below the floor, and ValueError for a ρ
    outside (0, 1].

    The defaults follow `benchmarks.training.ablations` (docs/benchmarks.md). `metric` "grad" (Σ|∂L/∂w|) treats tensors
    alike whether they were trained before or not, so that selections change little from epoch to epoch. By the paper's
    "dw_grad" (Eq. 10) they alternate between two sets: moments average gradients' noise away, so that the update of a
    trained tensor, and with it the importance, is a small part of an untrained one's. "release" frees 8 bytes for each
    weight that AdamW does not train; a tensor that is deselected is seldom selected again.
    """

    def __init__(
        self,
        rho: RhoSchedule,
        *,
        metric: Metric = "grad",
        probe_batches: int | None = None,
        reselect_every: int | None = None,
        charge_probe: bool = False,
        never_train: Sequence[str] = (),
        always_train: Sequence[str] = (),
        optimizer_state: OptimizerStatePolicy = "release",
        keep_whole: bool = False,
        on_epoch: Callable[[EpochReport], None] | None = None,
    ) -> None:
        if reselect_every is not None and reselect_every < 1:
            raise ValueError(f"reselect_every is {reselect_every}: expected at least 1 optimiser step, or None")
        super().__init__(optimizer_state=optimizer_state, keep_whole=keep_whole, on_epoch=on_epoch)
        self._rho = rho
        self._metric: Metric = metric
        self._probe = None if probe_batches is None else ImportanceProbe(metric, probe_batches)
        self._max_grad_norm: float | None = None  # of the arguments, while a step measures importance
        self._reselect_every = reselect_every
        self._charge_probe = charge_probe
        self._never_train, self._always_train = tuple(never_train), tuple(always_train)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, *_, **kwargs)
        saved = get_callback_states(state).get(STATE_KEY)
        if saved and "measurement" not in saved and self._probe is None:
            # a run of an earlier version, which goes on by what was its default
            self._metric = "dw_grad" if self._metric == "grad" else self._metric
            self._probe = ImportanceProbe(self._metric, 1)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        ledger = self._current_ledger
        if ledger.measurement is None and ledger.rho < 1 and self._is_reselection_due(state):
            self._whole.release()
            self._probe_and_select(ledger, args, state, kwargs)
            self._apply_selection(state, kwargs["optimizer"])
        self._whole.begin_step()
        if ledger.measurement is not None:
            self._max_grad_norm, args.max_grad_norm = args.max_grad_norm, 0.0

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        if self._max_grad_norm is not None:
            args.max_grad_norm, self._max_grad_norm = self._max_grad_norm, None
            self._select_in_step(args, state, kwargs)
        super().on_pre_optimizer_step(args, state, *_, **kwargs)

    def _assign_roles(self, model: Any) -> TensorRoles:
        return match_tensor_patterns(
            model, self._parameters, never_train=self._never_train, always_train=self._always_train
        )

    def _open_epoch_ledger(
        self, epoch: int, args: TrainingArguments, state: TrainerState, kwargs: Mapping[str, Any]
    ) -> EpochLedger:
        rho = agree(self._rho(epoch) if callable(self._rho) else self._rho)
        if not 0 < rho <= 1:
            raise ValueError(f"ρ of epoch {epoch} is {rho}: expected more than 0 and at most 1")
        ledger = EpochLedger(epoch, rho)
        if rho >= 1:
            ledger.add_selection(Reselection(state.global_step, self._costs.trainable))
        else:
            self._probe_and_select(ledger, args, state, kwargs)
        return ledger

    def _is_reselection_due(self, state: TrainerState) -> bool:
        done = state.global_step - self._current_ledger.current.step
        return self._reselect_every is not None and done >= self._reselect_every

    def _probe_and_select(
        self, ledger: EpochLedger, args: TrainingArguments, state: TrainerState, kwargs: Mapping[str, Any]
    ) -> None:
        """Select by a probe on batches of its own; without them begin to measure in the next step."""
        affordable = self._costs.list_affordable_tensors(ledger.rho)
        if self._probe is None:
            ledger.begin_measurement(Measurement(state.global_step, affordable))
            return
        try:
            probed = self._probe.measure(
                kwargs["model"],
                kwargs["optimizer"],
                kwargs["train_dataloader"],
                args,
                names=affordable,
                number=state.global_step,
                costs=self._costs,
            )
        except NotFinite as error:
            step = state.global_step + 1
            raise NotFinite(f"in the probe before step {step} {error}: {explain_non_finite(step)}") from error
        chosen = self._select(ledger, probed.importance, probed.flops, args, state, kwargs["train_dataloader"])
        ledger.add_selection(
            Reselection(state.global_step, chosen.names, probed.importance, probed.flops, probed.seconds)
        )

    def _select_in_step(self, args: TrainingArguments, state: TrainerState, kwargs: Mapping[str, Any]) -> None:
        """Select by the gradients of the step, drop those of the other tensors, and clip the rest.

        A step whose gradients fp16's scaler has found to overflow applies nothing, and the next one is measured.
        """
        started, ledger, optimizer = time.perf_counter(), self._current_ledger, kwargs["optimizer"]
        assert ledger.measurement is not None
        measured = {name: self._parameters[name] for name in ledger.measurement.tensors}
        try:
            importance = importance_of_gradients(
                measured, optimizer, self._metric, max_grad_norm=args.max_grad_norm or None
            )
        except NotFinite as error:
            if get_loss_scale(optimizer) <= 1:
                step = state.global_step + 1
                raise NotFinite(f"in step {step} {error}: {explain_non_finite(step)}") from error
            for parameter in measured.values():
                parameter.grad = None
            return
        flops = ledger.count_measured_flops(self._costs, measured)
        cheapest = ledger.count_measured_flops(self._costs, self._costs.cheapest)
        chosen = self._select(ledger, importance, flops - cheapest, args, state, kwargs["train_dataloader"])
        beyond = flops - ledger.count_measured_flops(self._costs, chosen.names)
        seconds = time.perf_counter() - started
        ledger.add_selection(Reselection(ledger.measurement.step, chosen.names, importance, beyond, seconds))
        self._apply_selection(state, optimizer)
        if args.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self._parameters.values(), args.max_grad_norm)

    def _select(
        self,
        ledger: EpochLedger,
        importance: Mapping[str, float],
        probe_flops: int,
        args: TrainingArguments,
        state: TrainerState,
        dataloader: Any,
    ) -> Selection:
        """Select the best tensors within ρ, less the share of the epoch's probes where they are charged."""
        charge = 0.0
        if self._charge_probe:
            charge = self._compute_probe_share(ledger, probe_flops, tuple(importance), args, state, dataloader)
        try:
            return self._costs.select(importance, ledger.rho - charge)
        except BudgetTooSmall as error:
            raise error.charged(ledger.rho, charge) from error

    def _compute_probe_share(
        self,
        ledger: EpochLedger,
        probe_flops: int,
        affordable: Collection[str],
        args: TrainingArguments,
        state: TrainerState,
        dataloader: Any,
    ) -> float:
        """Compute the share of the epoch's FLOPs that its probes take: past ones as counted, later ones at most."""
        if self._shapes.row_counts is None:
            raise ValueError("charge_probe needs a dataset of known length: the FLOPs of a stream's epoch are unknown")
        rows, whole = args.per_device_train_batch_size, -(-len(dataloader) // args.gradient_accumulation_steps)
        begun = ledger.selections[0].step if ledger.selections else state.global_step
        in_step = self._probe is None
        charge = ProbeCharge(
            batches=None if self._probe is None else self._probe.batches,
            passes=-(-rows // get_rows_computed_at_once(dataloader, rows))
            * (args.gradient_accumulation_steps if in_step else 1),
            reselect_every=self._reselect_every,
            row_counts=self._shapes.row_counts,
            steps_per_epoch=whole,
            trained_share=min(1.0, (state.max_steps - begun) / whole),
            clipped=bool(args.max_grad_norm),
            processes=count_probing_processes(dataloader, args),
        )
        spent = probe_flops + sum(selection.probe_flops for selection in ledger.selections)
        (spent,) = map(int, sum_over_processes((spent,)))
        return charge.compute_share(
            self._costs, self._full_costs, affordable, done=len(ledger.selections) + 1, spent=spent
        )


class BaselineCallback(SelectionCallback):
    """Trains the tensors of a baseline of the paper's §4, with its FLOPs counted as GreenTrainer's are.

    For "lora" and "prefix" the model must have its adapter (`greencore.training.methods.adapters.with_adapter`), which
    alone is trained.
    """

    def __init__(
        self,
        method: Baseline,
        *,
        keep_whole: bool = False,
        on_epoch: Callable[[EpochReport], None] | None = None,
    ) -> None:
        super().__init__(optimizer_state="keep", keep_whole=keep_whole, on_epoch=on_epoch)
        self._method: Baseline = method

    def _open_epoch_ledger(
        self, epoch: int, args: TrainingArguments, state: TrainerState, kwargs: Mapping[str, Any]
    ) -> EpochLedger:
        names = tuple(self._parameters)
        if self._method not in ("lora", "prefix"):
            epochs = max(1, state.num_train_epochs)
            wanted = set(list_trained_tensors(self._method, kwargs["model"], epoch=epoch, epochs=epochs))
            names = tuple(name for name in self._parameters if name in wanted)
        trained = set(names)
        tensors = tuple(name for name in self._costs.tensors if name in trained)
        ledger = EpochLedger(epoch, 1.0)
        ledger.add_selection(Reselection(state.global_step, tensors))
        return ledger


def build_callback(
    method: str, rho: RhoSchedule, settings: AdaptiveSettings | None, *, keep_whole: bool
) -> SelectionCallback:
    """Return the callback that trains by a method: "greentrainer" with its settings, or a baseline, which has none."""
    if method == "greentrainer":
        return GreenTrainerCallback(rho, keep_whole=keep_whole, **dict(settings or AdaptiveSettings()))
    return BaselineCallback(cast(Baseline, method), keep_whole=keep_whole)
