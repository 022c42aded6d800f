"""Checkpoints that are complete or absent, in safetensors and JSON only."""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer

OPTIMIZER, SCHEDULER, RANDOM = "optimizer", "scheduler", "random"
PREFIX = "checkpoint-"


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run; a half-written one never has its final name."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return max(found, key=lambda path: int(path.name.removeprefix(PREFIX)), default=None)


class CheckpointedTrainer(Trainer):
    """A Trainer whose checkpoints are written aside, flushed to disk, and renamed, without a pickle in them.

    A checkpoint holds weights, optimiser, schedule, random state and the position in the data. Once a new one is
    complete, the older ones are removed.
    """

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        assert self.args.output_dir is not None
        run = Path(self.args.output_dir)
        final, working = run / f"{PREFIX}{self.state.global_step}", run / ".checkpoint"
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(parents=True)
        assert self.model is not None
        self.accelerator.unwrap_model(self.model).save_pretrained(working)
        self._save_optimizer_and_scheduler(str(working))
        self._save_rng_state(str(working))
        self.state.save_to_json(str(working / "trainer_state.json"))
        make_durable(working)
        if final.exists():
            shutil.rmtree(final)
        working.rename(final)
        _flush(run)
        for path in run.glob(f"{PREFIX}*"):
            if path != final:
                shutil.rmtree(path)

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


def make_durable(folder: Path) -> None:
    """Flush every file below a folder, and the folder itself, to the disk."""
    for path in [*folder.rglob("*"), folder]:
        _flush(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())
