"""A Trainer whose checkpoints hold no pickle: safetensors and JSON only."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer

from greencore.training.checkpoint_folder import CheckpointFolder
from greencore.training.shapes import encodes
from greencore.training.token_loss import summed_token_loss

OPTIMIZER, SCHEDULER, RANDOM = "optimizer", "scheduler", "random"


class CheckpointedTrainer(Trainer):
    """A Trainer that writes its checkpoints into a `CheckpointFolder`.

    A checkpoint holds weights, optimiser, schedule, random state and the position in the data. The loss that it logs
    of a step is that of the learned tokens, without what the model adds to the loss that it minimises (a router's
    balance, for example).
    """

    def __init__(self, *, checkpoints: CheckpointFolder, **settings: Any) -> None:
        super().__init__(**settings)
        self._checkpoints = checkpoints
        # The Trainer tells by the class's name whether a loss leaves out each row's first token: GPT2LMHeadModel's does
        self._loss_shifts_labels = not encodes(self.model)
        self._token_loss: torch.Tensor | None = None

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As the Trainer does; keeps the step's loss per learned token for `log`."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        total, learned = summed_token_loss(outputs["logits"], inputs["labels"], encoder=encodes(self.model))
        self._token_loss = total / learned
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the step's loss per learned token in place of the loss that was minimised."""
        if "loss" in logs and self._token_loss is not None:
            logs["loss"] = float(self._token_loss)
        super().log(logs, start_time)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        epochs_done = int((self.state.epoch or 0.0) + 1e-6)
        self._checkpoints.write(self.state.global_step, epochs_done, self._fill)

    def _fill(self, folder: Path) -> None:
        assert self.model is not None
        self.accelerator.unwrap_model(self.model).save_pretrained(folder)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / "trainer_state.json"))

    def restore_weights(self, checkpoint: Path) -> None:
        """Take a checkpoint's weights alone, with which there is nothing left to train."""
        self._load_from_checkpoint(str(checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        target = model or self.model
        assert isinstance(target, torch.nn.Module)
        if hasattr(target, "peft_config"):
            from greencore.training.adapters import load_adapter

            load_adapter(target, Path(resume_from_checkpoint))  # type: ignore[arg-type]
            return
        missing = set(target.state_dict()) - set(getattr(target, "all_tied_weights_keys", ()))
        for file in sorted(Path(resume_from_checkpoint).glob("model*.safetensors")):
            weights = load_file(file)
            missing -= set(weights)
            target.load_state_dict(weights, strict=False)
        if missing:
            raise ValueError(f"{resume_from_checkpoint} lacks {', '.join(sorted(missing))}: it is of another model")

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
        save_file(tensors, folder / f"{OPTIMIZER}.safetensors")
        _write_json(folder / f"{OPTIMIZER}.json", {"numbers": numbers, "param_groups": state["param_groups"]})
        _write_json(folder / f"{SCHEDULER}.json", self.lr_scheduler.state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        folder = Path(checkpoint)
        rest = _read_json(folder / f"{OPTIMIZER}.json")
        entries = load_file(folder / f"{OPTIMIZER}.safetensors") | rest["numbers"]
        state: dict[int, dict[str, Any]] = {}
        for name, value in entries.items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": rest["param_groups"]})
        self.lr_scheduler.load_state_dict(_read_json(folder / f"{SCHEDULER}.json"))

    def _save_rng_state(self, output_dir: str) -> None:
        folder = Path(output_dir)
        tensors = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["cuda"] = torch.cuda.get_rng_state()
        algorithm, keys, *position = np.random.get_state()
        tensors["numpy"] = torch.from_numpy(np.asarray(keys, dtype=np.int64))
        save_file(tensors, folder / f"{RANDOM}.safetensors")
        _write_json(
            folder / f"{RANDOM}.json",
            {"python": random.getstate(), "numpy": [algorithm, *(float(p) for p in position)]},
        )

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        tensors, rest = load_file(folder / f"{RANDOM}.safetensors"), _read_json(folder / f"{RANDOM}.json")
        version, internal, gauss = rest["python"]
        random.setstate((version, tuple(internal), gauss))
        algorithm, position, has_gauss, cached = rest["numpy"]
        keys = tensors["numpy"].numpy().astype(np.uint32)
        np.random.set_state((algorithm, keys, int(position), int(has_gauss), cached))
        torch.set_rng_state(tensors["cpu"])
        if torch.cuda.is_available() and "cuda" in tensors:
            torch.cuda.set_rng_state(tensors["cuda"])


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())
