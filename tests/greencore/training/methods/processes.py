"""Runs of several processes under torchrun, and the same runs in this one."""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast
from unittest.mock import patch

import torch
import torch.distributed
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerState

from benchmarks.training.gathered_bytes import GATHER, observe
from greencore.backprop.shards import get_shard
from greencore.dataset import PromptRow
from greencore.settings.method_settings import LoraSettings
from greencore.training import GreenTrainerCallback
from greencore.training.methods.adapters import with_adapter
from greencore.training.methods.baselines import Baseline, forward_one_token
from greencore.training.methods.callback import BaselineCallback
from greencore.training.models.loading import load_model
from greencore.training.models.sharding import count_gathered
from greencore.training.models.whole_groups import WholeGroups
from tests.greencore.training.methods.trainers import counting_trainer
from tests.torchrun import run_processes
from tests.traces import remember_traces

ROWS = [PromptRow(f"w{1 + number} w2 w3 w4 w5 w6", " w7 w8 w9 w10") for number in range(40)]
ROWS_A_STEP, EPOCHS = 4, 4
RHO = (0.6, 0.8, 0.6, 0.9)

Layout = Literal["replicated", "sharded"]


@dataclass(frozen=True)
class Run:
    """A run's losses by step, the report of each epoch, and its weights; FLOPs and importance are of all processes.

    `held_bytes` are those of weights, gradients and optimiser state in this process. `gathered` are, by step, the bytes
    that each gathering of weights has made whole in it, `most_gathered` those that one may (`count_gathered`).
    """

    losses: list[float]
    reports: list[dict[str, Any]]
    held_bytes: int
    weights: Mapping[str, torch.Tensor]
    gathered: list[list[int]] = field(default_factory=list)
    most_gathered: int = 0


class GatheredBytes(TrainerCallback):
    """Counts the bytes of each gathering of weights, by step."""

    def __init__(self) -> None:
        self.steps: list[list[int]] = []

    def on_step_begin(self, *_: Any, **given: Any) -> None:
        self.steps.append([])

    def record(self, size: int) -> None:
        if self.steps:
            self.steps[-1].append(size)


class Evaluation(TrainerCallback):
    """Runs a pass without gradients after the third of each epoch's 5 steps."""

    def on_step_end(self, args: Any, state: TrainerState, *_: Any, **given: Any) -> None:
        if state.global_step % 5 == 3:
            forward_one_token(given["model"], use_cache=False)


class GradientBytes(TrainerCallback):
    """Counts the bytes of this process's gradients at a step, at most."""

    def __init__(self) -> None:
        self.most = 0

    def on_pre_optimizer_step(self, *_: Any, **given: Any) -> None:
        gradients = (parameter.grad for parameter in given["model"].parameters())
        self.most = max(self.most, sum(get_shard(one).nbytes for one in gradients if one is not None))


def train(folder: Path, output: Path, method: str, layout: Layout) -> Run:
    """Train in this process of a run; the settings are such that rounding does not grow.

    Frozen groups stay whole; where the method ends with "/gathered" none does, and with "/tight" the first process has
    memory for one block. "progressive" takes 5 steps an epoch, each in two parts, with an evaluation after the third.
    """
    method, _, memory = method.partition("/")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    torch.manual_seed(0)
    model: Any = load_model(folder, shards=processes if layout == "sharded" else 1)
    most_gathered = count_gathered(model)[1] * model.dtype.itemsize
    parts = 2 if method == "progressive" else 1
    callback: Any
    options: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.05}  # Adam's first steps turn rounding into signs
    if method in ("greentrainer", "probe", "adamw", "gt-0.5"):
        callback = GreenTrainerCallback(
            0.5 if method == "gt-0.5" else RHO.__getitem__,
            reselect_every=6,
            probe_batches=2 if method == "probe" else None,
            keep_whole=memory != "gathered",
        )
    else:
        model = with_adapter("lora", model, lora=LoraSettings(dropout=0.0)) if method == "lora" else model
        callback = BaselineCallback(cast(Baseline, method), keep_whole=memory != "gathered")
    if method == "adamw":
        options = {"optim": "adamw_torch", "learning_rate": 1e-4, "adam_epsilon": 1e-3}
    trainer, model = counting_trainer(
        folder,
        output,
        ROWS[: 40 // parts],
        [callback],
        model=model,
        epochs=EPOCHS,
        counting=False,
        per_device_train_batch_size=ROWS_A_STEP // processes // parts,
        gradient_accumulation_steps=parts,
        logging_steps=1,
        # the Trainer multiplies the mean loss of an encoder-decoder as if it were the sum's share
        average_tokens_across_devices=not model.config.is_encoder_decoder,
        **options,
    )
    trainer.add_callback(gradients := GradientBytes())
    trainer.add_callback(gathered := GatheredBytes())
    if method == "progressive":
        trainer.add_callback(Evaluation())
    room = most_gathered if memory == "tight" and os.environ["RANK"] == "0" else 2**40
    measured = patch.object(WholeGroups, "_measure_room", lambda _: room) if memory == "tight" else nullcontext()
    with observe(GATHER, gathered.record), measured:
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    reports = [
        {
            "tensors": report.tensors,
            "selections": [chosen.tensors for chosen in report.selections],
            "importance": dict(report.importance),
            "flops": [report.flops, report.full_flops, report.probe_flops],
        }
        for report in callback.epochs
    ]
    assert trainer.optimizer is not None
    state = [value for entries in trainer.optimizer.state.values() for value in entries.values()]
    tensors = [tensor for tensor in (*model.parameters(), *state) if isinstance(tensor, torch.Tensor)]
    held = gradients.most + sum(get_shard(tensor).nbytes for tensor in tensors)
    weights = {name: _gather(parameter) for name, parameter in model.named_parameters()}
    return Run(losses, json.loads(json.dumps(reports)), held, weights, gathered.steps, most_gathered)


def launch(cases: list[tuple[str, Path, str, Layout]], output: Path, *, processes: int) -> dict[str, list[Run]]:
    """Train the cases (name, model folder, method, layout) one after the other in processes of one torchrun."""
    output.mkdir()
    (output / "cases.json").write_text(json.dumps([[name, str(folder), *rest] for name, folder, *rest in cases]))
    run_processes(__file__, str(output), processes=processes, seconds=600)
    return {name: [_read(output / f"{name}-{rank}") for rank in range(processes)] for name, *_ in cases}


def main(output: Path) -> None:
    rank = int(os.environ["RANK"])
    for name, folder, method, layout in json.loads((output / "cases.json").read_text()):
        run = train(Path(folder), output / "run", method, layout)
        kept = output / f"{name}-{rank}"
        kept.mkdir()
        save_file({name: value.clone() for name, value in run.weights.items()}, kept / "weights.safetensors")
        rest = [run.gathered, run.most_gathered]
        (kept / "run.json").write_text(json.dumps([run.losses, run.reports, run.held_bytes, *rest]))


def _read(kept: Path) -> Run:
    losses, reports, held_bytes, *rest = json.loads((kept / "run.json").read_text())
    return Run(losses, reports, held_bytes, load_file(kept / "weights.safetensors"), *rest)


def _gather(parameter: torch.Tensor) -> torch.Tensor:
    return (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).detach()


if __name__ == "__main__":
    with remember_traces():
        main(Path(sys.argv[1]))
    # Left to the interpreter's end, the group's threads may be torn down while they run, which aborts the process.
    torch.distributed.destroy_process_group()
