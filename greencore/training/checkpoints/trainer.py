"""Trainer with checkpoints in safetensors and JSON, without pickle."""

import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import Sampler
from transformers import Trainer, TrainerState

from greencore.backprop import NotFinite
from greencore.backprop.importance import fill_labels
from greencore.backprop.master_weights import MasterWeights, set_gradient_types
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.batch_shapes import is_encoder_decoder
from greencore.training.batches.learned_positions import get_targets
from greencore.training.batches.micro_batches import MicroBatchCollator, StepRows, compute_shares
from greencore.training.checkpoints.folder import CheckpointFolder, CheckpointUnusable
from greencore.training.checkpoints.shards import TensorFiles, write_tensor_file, write_together
from greencore.training.data.tokenisation import to_device
from greencore.training.evaluation.ledger import LEDGER_KEY
from greencore.training.evaluation.token_loss import sum_token_loss
from greencore.training.finite_checks import check_step
from greencore.training.listener import count_finished_epochs
from greencore.training.methods.selection_callback import get_callback_states
from greencore.training.models.loading import ModelError, load_model
from greencore.training.models.precision import bf16_autocast
from greencore.training.models.weights import (
    WeightsMismatch,
    find_non_finite_tensor,
    list_changeable_tensors,
    named_tensors,
    read_tensors,
    write_tensors,
)
from greencore.training.processes import count_processes, get_rank, sum_over_processes
from greencore.training.recipe import build_optimizer_settings, build_scheduler

WEIGHTS, OPTIMIZER, SCHEDULER, RANDOM = "weights", "optimizer", "scheduler", "random"


class CheckpointedTrainer(Trainer):
    """Trainer that writes checkpoints into a `CheckpointFolder` and raises `NotFinite` at a non-finite step.

    A checkpoint holds weights, optimiser, schedule, random state and the position in the data. Its weights are those
    that training can change (only an adapter's, where the model has one), under the modules' names. The logged loss
    of a step is the mean over its learned tokens, without other terms of the model's loss, such as a router's balance.
    `sampler` orders the rows of each epoch; None shuffles them.

    A step's rows are computed in the micro-batches of `collator`, each weighted by its learned tokens, so that the step
    is that of the whole batch to rounding. (A router's balance is not linear in the rows; its term is weighted alike.)
    """

    def __init__(
        self,
        *,
        checkpoints: CheckpointFolder,
        collator: MicroBatchCollator,
        hyperparameters: Hyperparameters,
        model: torch.nn.Module,
        sampler: Sampler[int] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            model=model,
            data_collator=collator,  # type: ignore[arg-type]
            optimizer_cls_and_kwargs=build_optimizer_settings(hyperparameters, model),
            **settings,
        )
        assert isinstance(self.model, torch.nn.Module)
        self._checkpoints, self._collator, self._hyperparameters = checkpoints, collator, hyperparameters
        self._sampler = sampler
        self._changeable_names = list_changeable_tensors(self.model)
        # The Trainer derives from the class's name whether a loss skips each row's first token: GPT2LMHeadModel's does
        self._loss_shifts_labels = not is_encoder_decoder(self.model)
        self._share = 1.0  # of the micro-batch that is computed in the learned tokens of its step
        self._token_loss, self._learned_tokens = torch.zeros(()), 0  # of a step: summed, and their number

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Create the learning-rate schedule of the hyperparameters. Raises `SettingUnsupported`."""
        if self.lr_scheduler is None:
            target = optimizer or self.optimizer
            assert target is not None
            self.lr_scheduler = build_scheduler(target, self._hyperparameters, steps=num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Add the gradients of a step's rows, and return its loss; where memory runs out, with smaller micro-batches.

        Raises `StepTooLarge`.
        """
        assert isinstance(inputs, StepRows)
        return self._collator.run_within_memory(lambda: self._add_gradients(model, inputs), undo=model.zero_grad)

    def _add_gradients(self, model: torch.nn.Module, step: StepRows) -> torch.Tensor:
        self._token_loss, self._learned_tokens = torch.zeros(()), 0
        batches, processes = self._collator.collate_micro_batches(step.rows), count_processes()
        # what is frozen may be whole; trained later, it is sharded, with gradients of FSDP2's type
        set_gradient_types([p for p in model.parameters() if p.requires_grad], parts=len(batches))
        loss = torch.zeros((), device=self.args.device)
        shares = compute_shares(batches, encoder=is_encoder_decoder(self.model), everywhere=True)
        for batch, share in zip(batches, shares, strict=True):
            self._share = share * processes  # gradients are averaged over processes
            if share > 0:
                loss += super().training_step(model, batch) / processes
            elif processes > 1:  # the others wait for this one; without a learned token its loss is not a number
                super().training_step(model, dict(fill_labels(batch, 0)))
        if processes > 1:
            total, tokens, learned = sum_over_processes([float(loss), float(self._token_loss), self._learned_tokens])
            loss, self._token_loss, self._learned_tokens = loss.new_tensor(total), torch.tensor(tokens), int(learned)
        return loss

    def get_train_dataloader(self) -> Any:
        """Return the dataloader of whole steps, of which the collator takes this process's part."""
        dataloader = super().get_train_dataloader()
        if count_processes() > 1:
            batches: Any = dataloader.batch_sampler  # accelerate's, which would give each process steps of its own
            batches.num_processes, batches.process_index, batches.even_batches = 1, 0, False
        return dataloader

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Return the given sampler, or the Trainer's own, which shuffles."""
        return self._sampler or super()._get_train_sampler(train_dataset)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create the Trainer's optimiser, with float32 masters of weights in bfloat16."""
        created = self.optimizer is None
        optimizer = super().create_optimizer(model)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if created and any(parameter.dtype == torch.bfloat16 for parameter in parameters):
            self.optimizer = optimizer = MasterWeights(optimizer)
        return optimizer

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the loss of a micro-batch, weighted by its share of the step, and keep its token loss for `log`."""
        loss, outputs = super().compute_loss(model, inputs, True)
        total, learned = sum_token_loss(outputs["logits"], get_targets(inputs, encoder=is_encoder_decoder(self.model)))
        if self._share > 0:
            self._token_loss, self._learned_tokens = self._token_loss.to(total) + total, self._learned_tokens + learned
        if self._share != 1.0:
            loss = loss * self._share
        return (loss, outputs) if return_outputs else loss

    def compute_micro_batch_loss(self, examples: Sequence[Any]) -> torch.Tensor:
        """Compute the loss of a micro-batch of examples as a step computes it, in its precision."""
        assert isinstance(self.model, torch.nn.Module)
        batch = to_device(self._collator.collate(examples), self.args.device)
        with bf16_autocast(self.args.device, enabled=self.args.bf16):
            loss = self.compute_loss(self.model, batch)
        assert isinstance(loss, torch.Tensor)
        return loss

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: the callbacks count FLOPs."""
        return 0

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> None:
        """Return None: micro-batches are weighted by their tokens here."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the step's mean token loss in place of the minimised loss."""
        if "loss" in logs and self._learned_tokens:
            logs["loss"] = float(self._token_loss) / self._learned_tokens
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        epochs_done = count_finished_epochs(self.state)
        kept_step = (get_callback_states(self.state).get(LEDGER_KEY) or {}).get("kept_step")
        write = partial(self._checkpoints.write_checkpoint, self.state.global_step, epochs_done, kept_step=kept_step)
        write_together(write, self._write_files)

    def _write_files(self, folder: Path) -> None:
        assert isinstance(self.model, torch.nn.Module)
        if (name := find_non_finite_tensor(self.model)) is not None:
            raise NotFinite(f"after step {self.state.global_step} {name} is not finite: training has diverged")
        write_tensor_file(folder, WEIGHTS, read_tensors(self.model, self._changeable_names))
        self._save_optimizer_and_scheduler(str(folder))
        self._save_rng_state(str(folder))
        if get_rank() == 0:
            self._collator.save(folder)
            self.state.save_to_json(str(folder / "trainer_state.json"))

    def end_epoch(self, checkpoint: Path, state: TrainerState) -> None:
        """End the run at a checkpoint within an epoch, whose weights are restored: report its epoch, and replace it.

        `state` is the checkpoint's; its last step becomes the present one. The callbacks have it as when a step ends
        the run: one whose evaluation was interrupted is known to be the last only once it is repeated.
        """
        self.create_optimizer()
        self.create_scheduler(state.max_steps)
        self._load_optimizer_and_scheduler(str(checkpoint))
        self._load_rng_state(str(checkpoint))
        self.state, handler = state, self.callback_handler
        handler.optimizer, handler.lr_scheduler = self.optimizer, self.lr_scheduler
        handler.train_dataloader = self.get_train_dataloader()
        self.control = handler.on_train_begin(self.args, state, self.control)
        state.max_steps = state.global_step
        self.control = handler.on_epoch_end(self.args, state, self.control)
        self._save_checkpoint(self.model, None)
        self.control = handler.on_train_end(self.args, state, self.control)

    def restore_weights(self, checkpoint: Path) -> None:
        """Load only the weights of a checkpoint, for a run whose training is complete."""
        self._load_from_checkpoint(str(checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        target, checkpoint = model or self.model, Path(resume_from_checkpoint)
        assert isinstance(target, torch.nn.Module)
        files, own = TensorFiles(checkpoint, WEIGHTS), named_tensors(target)
        try:
            if files:
                held = {name: files.read(name, own.get(name)) for name in files}
                write_tensors(target, held, self._changeable_names)
            else:
                self._load_pretrained_layout(target, checkpoint)
        except (WeightsMismatch, ModelError) as error:
            raise CheckpointUnusable(f"{checkpoint.name} is not of this model: {error}") from error
        if (name := find_non_finite_tensor(target)) is not None:
            raise NotFinite(f"{name} is not finite in {checkpoint.name}: training had diverged before it was written")
        self._collator.restore(checkpoint)

    def _load_pretrained_layout(self, target: torch.nn.Module, checkpoint: Path) -> None:
        """Load a checkpoint of an earlier version, with weights as `save_pretrained` writes them."""
        if hasattr(target, "peft_config"):
            from greencore.training.methods.adapters import load_adapter

            load_adapter(target, checkpoint)  # type: ignore[arg-type]
        else:
            held = read_tensors(load_model(checkpoint), named_tensors(target).keys())
            write_tensors(target, held, named_tensors(target).keys())

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Return the gradient norm of a step, before the optimiser step. Raises `NotFinite`."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        # every step is logged, so the loss summed since the last log is this step's
        check_step(self.state.global_step + 1, loss=float(self._tr_loss), gradient_norm=float(norm))
        return norm

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        state = self.optimizer.state_dict()
        tensors, numbers = {}, {}
        for index, entries in state["state"].items():
            for key, value in entries.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{index}.{key}"] = value.contiguous()
                else:
                    numbers[f"{index}.{key}"] = value
        folder = Path(output_dir)
        write_tensor_file(folder, OPTIMIZER, tensors)
        if get_rank() > 0:
            return
        rest = {
            "numbers": numbers,
            "param_groups": state["param_groups"],
            "names": self._list_optimizer_parameter_names(),
        }
        _write_json(folder / f"{OPTIMIZER}.json", rest)
        _write_json(folder / f"{SCHEDULER}.json", self.lr_scheduler.state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        folder = Path(checkpoint)
        rest = _read_json(folder / f"{OPTIMIZER}.json")
        if rest.get("names", self._list_optimizer_parameter_names()) != self._list_optimizer_parameter_names():
            raise CheckpointUnusable(f"{folder.name} is not of this model: its optimiser trained other tensors")
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        files = TensorFiles(folder, OPTIMIZER)
        tensors = {name: files.read(name, parameters[int(name.partition(".")[0])]) for name in files}
        state: dict[int, dict[str, Any]] = {}
        for name, value in (tensors | rest["numbers"]).items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": rest["param_groups"]})
        self.lr_scheduler.load_state_dict(_read_json(folder / f"{SCHEDULER}.json"))

    def _list_optimizer_parameter_names(self) -> list[str]:
        """Return the optimiser's parameter names in its order, by which its state is numbered."""
        assert self.optimizer is not None
        assert isinstance(self.model, torch.nn.Module)
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return [names[parameter] for group in self.optimizer.param_groups for parameter in group["params"]]

    def _save_rng_state(self, output_dir: str) -> None:
        folder = Path(output_dir)
        tensors = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["cuda"] = torch.cuda.get_rng_state()
        algorithm, keys, *position = np.random.get_state()
        tensors["numpy"] = torch.from_numpy(np.asarray(keys, dtype=np.int64))
        name = _name_random_state()
        save_file(tensors, folder / f"{name}.safetensors")
        _write_json(
            folder / f"{name}.json",
            {"python": random.getstate(), "numpy": [algorithm, *(float(p) for p in position)]},
        )

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder, name = Path(checkpoint), _name_random_state()
        if get_rank() > 0 and not (folder / f"{name}.json").is_file():
            return  # written by fewer processes
        tensors, rest = load_file(folder / f"{name}.safetensors"), _read_json(folder / f"{name}.json")
        version, internal, gauss = rest["python"]
        random.setstate((version, tuple(internal), gauss))
        algorithm, position, has_gauss, cached = rest["numpy"]
        keys = tensors["numpy"].numpy().astype(np.uint32)
        np.random.set_state((algorithm, keys, int(position), int(has_gauss), cached))
        torch.set_rng_state(tensors["cpu"])
        if torch.cuda.is_available() and "cuda" in tensors:
            torch.cuda.set_rng_state(tensors["cuda"])


def _name_random_state() -> str:
    return RANDOM if get_rank() == 0 else f"{RANDOM}-{get_rank():05}"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())
