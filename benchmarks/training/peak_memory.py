"""Benchmarks the predicted peak memory of a run's steps against what PyTorch's CPU allocator gave out.

    python -m benchmarks.training.peak_memory

The allocator's events count every allocation, those within kernels too, and are exact: a process's resident memory also
holds what the C library keeps after a release, which depends on its settings.
"""

import gc
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PrinterCallback, TrainerCallback

from benchmarks.report import publish
from greencore.device import RunPrecision
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.method_settings import AdaptiveSettings, Metric
from greencore.training.batches.batch_shapes import BatchShapes
from greencore.training.batches.micro_batches import Collate, HalvedMicroBatch, MicroBatchCollator
from greencore.training.checkpoints.folder import CheckpointFolder
from greencore.training.checkpoints.trainer import CheckpointedTrainer
from greencore.training.data.tokenisation import Collator, Example
from greencore.training.methods.adapters import with_adapter
from greencore.training.methods.callback import build_callback
from greencore.training.methods.step_costs import StepCosts
from greencore.training.methods.step_memory import list_largest_selection, predict_step_memory
from greencore.training.models.loading import enable_gradient_checkpointing
from greencore.training.recipe import build_training_arguments
from greencore.training.run import Method

TOLERANCE = 0.15
ROWS, LENGTH, STEPS, STEPS_OF_AN_EPOCH = 4, 128, 3, 2


@dataclass(frozen=True)
class Configuration:
    """What a run trains, and in what: its precision, with or without recomputation, `rows` at once.

    With `apart` importance is probed on a batch of its own, and in an epoch's first step otherwise.
    """

    name: str
    method: Method
    rho: float = 1.0
    recomputed: bool = False
    precision: RunPrecision = "fp32"
    rows: int = ROWS
    apart: bool = False
    metric: Metric = AdaptiveSettings().metric

    @property
    def adaptive(self) -> AdaptiveSettings:
        """Settings of adaptive backpropagation."""
        return AdaptiveSettings(probe_batches=1 if self.apart else None, metric=self.metric)


CONFIGURATIONS = (
    Configuration("full", "full"),
    Configuration("full, recomputed", "full", recomputed=True),
    Configuration("GT-0.5", "greentrainer", 0.5),
    Configuration("GT-0.5, recomputed", "greentrainer", 0.5, recomputed=True),
    Configuration("LoRA", "lora"),
    Configuration("GT-0.5, bf16", "greentrainer", 0.5, precision="bf16"),
    Configuration("GT-0.95, bf16, recomputed", "greentrainer", 0.95, recomputed=True, precision="bf16"),
    Configuration("full, bf16, row by row", "full", precision="bf16", rows=1),
    Configuration("GT-0.5, two rows at once", "greentrainer", 0.5, rows=2),
    Configuration("GT-0.5, bf16, two rows at once", "greentrainer", 0.5, precision="bf16", rows=2),
    Configuration("GT-0.5, Δw · ∂L/∂w", "greentrainer", 0.5, metric="dw_grad"),
    Configuration("GT-0.5, bf16, Δw · ∂L/∂w", "greentrainer", 0.5, precision="bf16", metric="dw_grad"),
    Configuration("GT-0.5, probe apart, Δw · ∂L/∂w", "greentrainer", 0.5, apart=True, metric="dw_grad"),
    Configuration("GT-0.5, probe apart", "greentrainer", 0.5, apart=True),
    Configuration("GT-0.5, recomputed, probe apart", "greentrainer", 0.5, recomputed=True, apart=True),
    Configuration("GT-0.5, bf16, probe apart", "greentrainer", 0.5, precision="bf16", apart=True),
    Configuration(
        "GT-0.95, bf16, recomputed, probe apart", "greentrainer", 0.95, recomputed=True, precision="bf16", apart=True
    ),
    Configuration("GT-0.5, two rows at once, probe apart", "greentrainer", 0.5, rows=2, apart=True),
    Configuration(
        "GT-0.5, bf16, two rows at once, probe apart", "greentrainer", 0.5, precision="bf16", rows=2, apart=True
    ),
)


def build_model() -> PreTrainedModel:
    """Build a Llama of 26 million parameters with random weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16384,
            hidden_size=384,
            intermediate_size=1024,
            num_hidden_layers=12,
            num_attention_heads=6,
            tie_word_embeddings=True,
        )
    )


def compare(build: Callable[[], PreTrainedModel], given: Configuration) -> dict[str, float]:
    """Return the measured and the predicted peak memory of a run's steps, in MiB."""
    method, rho = given.method, given.rho
    with tempfile.TemporaryDirectory() as folder:
        settings = Hyperparameters(
            batch_size=ROWS, micro_batch_size=given.rows, max_steps=STEPS, adaptive=given.adaptive
        )
        with torch.device("meta"):
            meta = build()
        if given.recomputed:
            enable_gradient_checkpointing(meta)
        shapes = BatchShapes(given.rows, (LENGTH,), (LENGTH,))
        probed: tuple[str, ...] = ()
        names: Any = [name for name, _ in meta.named_parameters()]
        if method == "greentrainer":
            costs = StepCosts(meta, shapes)
            names, probed = list_largest_selection(costs, rho), costs.list_affordable_tensors(rho)
        elif method == "lora":
            meta = cast(PreTrainedModel, with_adapter("lora", meta))
            names = [name for name, parameter in meta.named_parameters() if parameter.requires_grad]
        predicted = predict_step_memory(meta, shapes, settings, names=names, probed=probed, precision=given.precision)
        model = build()
        if given.precision == "bf16":
            model.to(dtype=torch.bfloat16)  # type: ignore[call-arg]
        if given.recomputed:
            enable_gradient_checkpointing(model)
        measured = measure_training(model, method, rho, settings, Path(folder))
    return {
        "measured MiB": measured / 2**20,
        "predicted MiB": predicted.peak / 2**20,
        "weights": predicted.weights / 2**20,
        "gradients": predicted.gradients / 2**20,
        "optimiser state": predicted.optimizer_state / 2**20,
        "predicted/measured": predicted.peak / measured,
    }


def measure_training(
    model: PreTrainedModel, method: Method, rho: float, settings: Hyperparameters, folder: Path
) -> int:
    """Train for a few steps, and return the most bytes that the model and the allocator's clients held."""
    if method == "lora":
        model = cast(PreTrainedModel, with_adapter("lora", model))
    draw = torch.Generator().manual_seed(1)
    vocabulary = model.config.vocab_size
    rows = [
        tuple(torch.randint(1, vocabulary, (LENGTH,), generator=draw).tolist()) for _ in range(ROWS * STEPS_OF_AN_EPOCH)
    ]
    callback = build_callback(method, rho, settings.adaptive, keep_whole=False)
    trainer = build_trainer(model, settings, folder, [Example(row, row) for row in rows], [callback], Collator(0))
    return measure_cpu_peak(model, trainer.train)


def build_trainer(
    model: PreTrainedModel,
    settings: Hyperparameters,
    folder: Path,
    examples: Sequence[Example],
    callbacks: Sequence[TrainerCallback],
    collate: Collate,
    *,
    on_halved: Callable[[HalvedMicroBatch], None] | None = None,
) -> CheckpointedTrainer:
    """Build the Trainer of a run, which writes no checkpoint and logs nothing."""
    trainer = CheckpointedTrainer(
        checkpoints=CheckpointFolder(folder),
        model=model,
        args=build_training_arguments(folder, settings, bf16=False, save_strategy="no", logging_strategy="no"),
        train_dataset=cast(Any, examples),
        collator=MicroBatchCollator(collate, settings.rows_at_once, on_halved=on_halved),
        hyperparameters=settings,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def measure_cpu_peak(model: torch.nn.Module, train: Callable[[], object]) -> int:
    """Return the most bytes that a model and the clients of PyTorch's CPU allocator held while `train` ran."""
    gc.collect()
    storages = {id(s): s.nbytes() for s in (t.untyped_storage() for t in (*model.parameters(), *model.buffers()))}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        train()
    results: Any = profiler.profiler
    events = [(e.start_ns(), e.nbytes()) for e in results.kineto_results.events() if e.name() == "[memory]"]
    held = peak = sum(storages.values())
    for _, size in sorted(events, key=lambda event: event[0]):
        held += size
        peak = max(peak, held)
    return peak


def main() -> int:
    transformers.utils.logging.disable_progress_bar()
    measured = [compare(build_model, each) for each in CONFIGURATIONS]
    rows = [{"run": each.name, **found} for each, found in zip(CONFIGURATIONS, measured, strict=True)]
    return publish(
        "peak_memory",
        f"Peak memory of training 26 million parameters, {ROWS} rows of {LENGTH} tokens",
        rows,
        notes=[
            "measured: weights, and what PyTorch's CPU allocator held besides, over three steps in two epochs,"
            " each with its probe, in its first step or apart",
            "GT is predicted for the largest tensors within ρ, before it is known which ones are selected",
        ],
        checks={
            f"predicted within {TOLERANCE:.0%} of measured": all(
                abs(found["predicted/measured"] - 1) <= TOLERANCE for found in measured
            )
        },
    )


if __name__ == "__main__":
    sys.exit(main())
