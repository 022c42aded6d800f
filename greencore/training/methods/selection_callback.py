"""Base callback of adaptive backpropagation and the baselines: freeze tensors, count every step, report each epoch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any, Literal, cast, get_args

import torch
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from greencore.backprop import BudgetTooSmall, TensorCost
from greencore.backprop.selection.importance_curve import ConcaveCurve
from greencore.model_names import TensorRoles
from greencore.training.batches.batch_shapes import StepShape, get_step_shape, is_encoder_decoder, measure_batch_shapes
from greencore.training.finite_checks import check_gradients, check_model
from greencore.training.methods.epoch_ledger import EpochLedger, EpochReport, Reselection
from greencore.training.methods.parallelism import prepare_sharded_model
from greencore.training.methods.step_costs import StepCosts
from greencore.training.models.whole_groups import WholeGroups
from greencore.training.processes import sum_over_processes

OptimizerStatePolicy = Literal["release", "host", "keep"]

STATE_KEY = "greencore"  # of the ledger in the Trainer's own state, which every checkpoint holds as JSON


class SelectionCallback(TrainerCallback, ABC):
    """Trains the tensors that `_open_epoch_ledger` selects, counts every step and reports every epoch.

    All other tensors are frozen. `on_epoch` is called with the `EpochReport` at each epoch's end; `epochs` keeps them.
    FLOPs are compared with full fine-tuning of the same model on the same batches, for an adapter too. A run resumed
    within an epoch continues with the selection in its checkpoint. The model may run in several processes, replicated
    (DDP) or sharded (FSDP2); all of them select the same tensors. The trained parameters change, so that
    `ddp_find_unused_parameters` must not be off. With `keep_whole` frozen groups of a sharded model stay whole in every
    process where memory allows (`WholeGroups`). FLOPs are those of the model's own loss: TRL's SFTTrainer
    computes the output embedding's logits once more in its backward pass, for every method alike. At the end of
    training every tensor is trainable again. Raises as training begins `ParallelismUnsupported` for a model that is
    distributed in another way (FSDP1, DeepSpeed, tensor parallelism), and `ModelError` for one whose weights are not
    finite; `greencore.backprop.NotFinite` with the step whose gradients are not, before they are applied.
    """

    def __init__(
        self,
        *,
        optimizer_state: OptimizerStatePolicy = "release",
        keep_whole: bool = False,
        on_epoch: Callable[[EpochReport], None] | None = None,
    ) -> None:
        if optimizer_state not in get_args(OptimizerStatePolicy):
            raise ValueError(
                f"optimizer_state is one of {', '.join(get_args(OptimizerStatePolicy))}, got {optimizer_state!r}"
            )
        self._optimizer_state: OptimizerStatePolicy = optimizer_state
        self._on_epoch, self._keep_whole = on_epoch, keep_whole
        self._parameters: dict[str, torch.nn.Parameter] = {}
        self._hook: Any = None
        self._encoder = False
        self._in_epoch = False
        self._ledger: EpochLedger | None = None
        self.epochs: list[EpochReport] = []

    @abstractmethod
    def _open_epoch_ledger(
        self, epoch: int, args: TrainingArguments, state: TrainerState, kwargs: Mapping[str, Any]
    ) -> EpochLedger:
        """Return the ledger of the epoch that begins, with its first selection or the measurement that will make it."""

    def _assign_roles(self, model: Any) -> TensorRoles:
        """Return which of the optimiser's tensors every selection trains, and which none does."""
        return TensorRoles()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        check_model(model)
        prepare_sharded_model(model, args)
        optimized = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        self._parameters = {name: p for name, p in model.named_parameters() if id(p) in optimized}
        if not self._parameters:
            raise ValueError("the model has no trainable tensor: the optimiser holds none")
        _disable_input_require_grads(model)
        self._encoder = is_encoder_decoder(model)
        self._shapes = measure_batch_shapes(
            kwargs["train_dataloader"],
            batch_size=args.per_device_train_batch_size,
            encoder=self._encoder,
            longest_of_stream=getattr(getattr(model, "config", None), "max_position_embeddings", None) or 2048,
        )
        longest = StepShape(self._shapes.rows, self._shapes.longest)
        self._whole = WholeGroups(model, longest, enabled=self._keep_whole)
        roles = self._assign_roles(model)
        self._costs = StepCosts(
            model, self._shapes, names=self._parameters.keys(), always=roles.always, never=roles.never
        )
        self._full_costs = self._build_full_costs(model)
        self._hook = model.register_forward_pre_hook(self._count_step, with_kwargs=True)
        saved = get_callback_states(state).get(STATE_KEY)
        self._ledger = EpochLedger.from_json(saved) if saved else None

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        self._whole.release()
        done = state.epoch or 0.0
        epoch = int(done + 1e-6)
        resumed = self._ledger is not None and self._ledger.epoch == epoch and done - epoch > 1e-6
        if not resumed:
            self._ledger = self._open_epoch_ledger(epoch, args, state, kwargs)
        self._apply_selection(state, kwargs["optimizer"])
        self._in_epoch = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        self._in_epoch = False
        self._end_measurement()
        report = self._build_report(args)
        self.epochs.append(report)
        if self._on_epoch:
            self._on_epoch(report)

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        if getattr(kwargs["optimizer"], "scaler", None) is None:  # fp16's scaler skips such a step
            gradients = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
            check_gradients(state.global_step + 1, gradients, clipped=bool(args.max_grad_norm))

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        self._whole.begin_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        if self._current_ledger.measurement is None:
            self._whole.end_step()
        get_callback_states(state)[STATE_KEY] = self._current_ledger.to_json()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        self._hook.remove()
        self._whole.release()
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)

    @property
    def tensor_costs(self) -> tuple[TensorCost, ...]:
        """FLOPs of each tensor's gradients in one step of the longest rows, output to input; set as training begins."""
        return self._costs.tensor_costs

    @property
    def _current_ledger(self) -> EpochLedger:
        assert self._ledger is not None
        return self._ledger

    def _apply_selection(self, state: TrainerState, optimizer: Any) -> None:
        """Freeze the tensors that are not selected, and apply the optimiser state policy.

        While a selection is measured, all that it may select are trainable and keep their state where it is.
        """
        trained = set(self._current_ledger.trained)
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name in trained)
            if name not in trained:
                parameter.grad = None
        if self._current_ledger.measurement is None:
            _apply_optimizer_state_policy(optimizer, self._parameters.values(), self._optimizer_state)
        get_callback_states(state)[STATE_KEY] = self._current_ledger.to_json()

    def _end_measurement(self) -> None:
        """Count the steps of a measurement that ends without a selection, since fp16's scaler passed over them all."""
        ledger = self._current_ledger
        if ledger.measurement is not None:
            step, names = ledger.measurement.step, ledger.measurement.tensors
            costs = [ledger.count_measured_flops(self._costs, trained) for trained in (names, ())]
            ledger.add_selection(Reselection(step, (), probe_flops=costs[0] - costs[1]))

    def _build_full_costs(self, model: torch.nn.Module) -> StepCosts:
        """Return the costs of full fine-tuning: for an adapter, those of the model below it."""
        if not hasattr(model, "peft_config"):
            return self._costs
        frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        disabled = getattr(model, "disable_adapter", nullcontext)
        with disabled():
            return StepCosts(model, self._shapes, names=frozen)

    def _build_report(self, args: TrainingArguments) -> EpochReport:
        ledger = self._current_ledger
        trained = {name for selection in ledger.selections for name in selection.tensors}
        spent, full, plain = ledger.count_flops(self._costs, self._full_costs)
        probes = sum(selection.probe_flops for selection in ledger.selections)
        spent, full, plain, probes = map(int, sum_over_processes((spent, full, plain, probes)))
        return EpochReport(
            epoch=ledger.epoch,
            rho=ledger.rho,
            tensors=tuple(name for name in self._costs.tensors if name in trained),
            tensors_total=len(self._costs.tensors),
            importance=ledger.current.importance,
            flops=spent,
            full_flops=full,
            plain_full_flops=plain,
            probe_flops=probes,
            probe_seconds=sum(selection.probe_seconds for selection in ledger.selections),
            selections=tuple(ledger.selections),
            curve=self._compute_curve(ledger),
        )

    def _compute_curve(self, ledger: EpochLedger) -> ConcaveCurve | None:
        """Compute the importance within each share of the FLOPs; None where nothing was probed."""
        try:
            return self._costs.curve(ledger.current.importance, ledger.rho) if ledger.current.importance else None
        except BudgetTooSmall:
            return None  # no tensor fits in a step of the longest rows

    def _count_step(self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not (self._in_epoch and model.training and torch.is_grad_enabled()):
            self._whole.begin_pass(None)
            return
        batch = kwargs if "input_ids" in kwargs or not args else {**kwargs, "input_ids": args[0]}
        shape = get_step_shape(batch, encoder=self._encoder)
        self._whole.begin_pass(shape)
        self._current_ledger.count_step(shape)


def _apply_optimizer_state_policy(
    optimizer: Any, parameters: Iterable[torch.nn.Parameter], policy: OptimizerStatePolicy
) -> None:
    """Apply the policy to the state of frozen `parameters`, and move that of trainable ones to their device.

    With "host" the entries stay in the optimiser, so that checkpoints hold them, but in host memory; step counters stay
    on the device that the optimiser chose.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps the real one
    for parameter in parameters:
        if parameter not in optimizer.state:
            continue
        if policy == "release" and not parameter.requires_grad:
            del optimizer.state[parameter]
        elif policy == "host":
            where = parameter.device if parameter.requires_grad else torch.device("cpu")
            entries = optimizer.state[parameter]
            for key, value in entries.items():
                if isinstance(value, torch.Tensor) and value.dim() > 0:
                    entries[key] = value.to(where)


def get_callback_states(state: TrainerState) -> dict[str, Any]:
    """Return the callbacks' state in a checkpoint: a mapping once it is made, whatever its annotation says."""
    return cast(dict[str, Any], state.stateful_callbacks)


def _disable_input_require_grads(model: torch.nn.Module) -> None:
    """Undo the gradients of the embeddings' outputs, which transformers enables for reentrant checkpointing.

    With them every selection would pay for the whole backward pass.
    """
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    recomputing = [block._gradient_checkpointing_func for block in blocks if block.gradient_checkpointing]
    reentrant = [getattr(recompute, "keywords", {}).get("use_reentrant", True) for recompute in recomputing]
    if recomputing and not any(reentrant):
        getattr(model, "disable_input_require_grads", lambda: None)()
