"""Benchmarks time and memory of one epoch of a real model: full fine-tuning, LoRA, and GT at three ρ.

    python -m benchmarks.training.time_memory [--rows N] [--rounds N]

Each arm runs in a separate process, one after the other in each round, so that a drift of the machine's speed affects
all arms; the median over rounds is shown. The rows are synthetic, with the lengths of SciTLDR's abstracts and
summaries.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
import transformers
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerState, TrainingArguments

from benchmarks.report import publish
from benchmarks.training.finetuning import MODEL, Arm, model_folder, run_fine_tuning
from greencore.dataset import PromptRow
from greencore.training.batches.batch_shapes import BatchShapes
from greencore.training.data.prompt_formats import TLDR
from greencore.training.data.tokenisation import Example, round_up_length, tokenise_rows
from greencore.training.methods.step_costs import StepCosts
from greencore.training.models.loading import load_meta_model, load_tokenizer
from greencore.training.models.precision import choose_device, supports_bf16

# The paper's GT-0.4 is at or below the floor for such rows (see `find_rho_floor`).
ARMS = (
    Arm("full", "full"),
    Arm("LoRA", "lora"),
    Arm("GT-0.7", "greentrainer", 0.7),
    Arm("GT-0.5", "greentrainer", 0.5),
    Arm("GT-0.45", "greentrainer", 0.45),
)
BATCH = 4
SLACK = 0.05
MAX_LENGTH = 512
VOCABULARY = (  # of words that are one token each
    "we propose a method for learning with deep neural networks that can be trained on large data and show how the"
    " model improves over previous work in language vision control by reducing error cost of inference while its"
    " accuracy remains high under noise shift or limited supervision our analysis explains why such representations"
    " transfer across tasks"
)
MEDIANS = ("seconds", "probe seconds", "loading seconds", "tracing seconds")
PEAKS = ("peak MiB", "above model MiB")


class EpochTimer(TrainerCallback):
    """Times an epoch from its start, before its probe, to its end, and the tracing between loading and its start.

    Its callbacks must be called before the arm's own.
    """

    def __init__(self) -> None:
        self.began = self.seconds = self.tracing_seconds = self.loaded_mib = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        for parameter in kwargs["model"].parameters():
            parameter.detach().sum()  # a memory-mapped weight counts only once it is read
        self.loaded_mib = _allocated_mib()
        self.began = _synchronized_time()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        self._started = _synchronized_time()
        self.tracing_seconds = self._started - self.began

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        self.seconds = _synchronized_time() - self._started


def run(arm: Arm, rows: int) -> dict[str, Any]:
    """Train one epoch of an arm in this process, and return its row."""
    transformers.utils.logging.disable_progress_bar()
    folder, watch = model_folder(), EpochTimer()
    tokenizer = load_tokenizer(folder)
    examples = make_synthetic_rows(rows, tokenizer)
    started = _synchronized_time()
    _, cost = run_fine_tuning(
        arm,
        folder,
        tokenizer,
        examples,
        learning_rate=1e-4,
        seed=0,
        steps=-(-rows // BATCH),
        batch_size=BATCH,
        before=[watch],
    )
    peak = _peak_mib()
    return {
        "arm": arm.name,
        "rho": arm.rho,
        "steps": cost.steps,
        "precision": "bf16" if supports_bf16(choose_device()) else "fp32",
        "share": cost.flops / cost.full_flops,
        "share with probe": cost.share,
        "seconds": watch.seconds,
        "probe seconds": cost.probe_seconds,
        "loading seconds": watch.began - started,
        "tracing seconds": watch.tracing_seconds,
        "peak MiB": peak,
        "above model MiB": peak - watch.loaded_mib,
    }


def make_synthetic_rows(rows: int, tokenizer: PreTrainedTokenizerBase) -> tuple[Example, ...]:
    """Build rows with prompts of 150 to 250 tokens and completions of 15 to 35, plus those of the format."""
    draw = np.random.default_rng(0)

    def words(fewest: int, most: int) -> str:
        return " ".join(draw.choice(VOCABULARY.split(), int(draw.integers(fewest, most + 1))))

    texts = [PromptRow(words(150, 250), words(15, 35)) for _ in range(rows)]
    return tokenise_rows(texts, tokenizer, max_length=MAX_LENGTH, prompt_format=TLDR).examples


def find_rho_floor(rows: int) -> float:
    """Return the smallest ρ at which a tensor can be trained on these rows; it falls with the shortest row's length."""
    folder = model_folder()
    lengths = [round_up_length(len(row.input_ids)) for row in make_synthetic_rows(rows, load_tokenizer(folder))]
    return StepCosts(load_meta_model(folder), BatchShapes(BATCH, (min(lengths),), (max(lengths),))).floor


def _synchronized_time() -> float:
    """Return the time in seconds after all asynchronous work of the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _allocated_mib() -> float:
    """Return the memory in use: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / 2**20
    return float(psutil.Process().memory_info().rss) / 2**20


def _peak_mib() -> float:
    """Return the peak memory: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _run_in_subprocess(arm: Arm, rows: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training.time_memory", "--arm", arm.name, "--rows", str(rows)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(done.stdout.splitlines()[-1])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.time_memory")
    parser.add_argument("--rows", type=int, default=64, help="rows of the epoch, in batches of 4")
    parser.add_argument("--rounds", type=int, default=2, help="how often all arms run")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        [arm] = [arm for arm in ARMS if arm.name == options.arm]
        print(json.dumps(run(arm, options.rows)))
        return 0
    rounds = [[_run_in_subprocess(arm, options.rows) for arm in ARMS] for _ in range(options.rounds)]
    rows = [_summary([of_round[position] for of_round in rounds], rounds) for position in range(len(ARMS))]
    full, green = rows[0], [row for row in rows if row["arm"].startswith("GT")]
    least = find_rho_floor(options.rows)
    precisions = sorted({run["precision"] for of_round in rounds for run in of_round})
    return publish(
        "time_memory",
        f"One epoch of {MODEL}, {options.rows} rows in batches of {BATCH}",
        rows,
        columns=[
            *("arm", "share", "share with probe", "s per step", "time share"),
            *("probe seconds", "probe share", "tracing seconds", *PEAKS),
        ],
        notes=[
            "s per step and time share: from the epoch's start to its end, probe and selection included; probe share:"
            f" of the arm's own epoch, which has {full['steps']} step(s) and one probe",
            "tracing: once a run, before the epoch and not in its time, for full and LoRA as well, whose FLOPs are"
            " counted; loading the model is in neither",
            "peak: of the process, model and libraries included (on a GPU: allocated by torch); above model: minus the"
            " memory at the start of training, with the model loaded",
            f"{options.rounds} round(s), medians of times and the highest of peaks; threads: {torch.get_num_threads()};"
            f" precision: {' and '.join(precisions)}"
            + (", whose autocast copies of the weights are in the peak" if "bf16" in precisions else ""),
            f"the floor of ρ for these rows is {least:.4f}, so that the paper's GT-0.4 is"
            f" {'below it' if least > 0.4 else 'almost at it'}: GT-0.45 replaces it",
        ],
        checks={
            f"time share at most ρ + {SLACK}": all(row["time share"] <= row["rho"] + SLACK for row in green),
            "peak memory below full fine-tuning's": all(row["peak MiB"] < full["peak MiB"] for row in green),
            "every arm in the same precision": len(precisions) == 1,
        },
    )


def _summary(runs: list[dict[str, Any]], rounds: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Summarise an arm's runs as one row; its time share is relative to full fine-tuning in the same round."""
    return (
        runs[0]
        | {name: median(run[name] for run in runs) for name in MEDIANS}
        | {name: max(run[name] for run in runs) for name in PEAKS}
        | {
            "s per step": median(run["seconds"] / run["steps"] for run in runs),
            "time share": median(run["seconds"] / of[0]["seconds"] for run, of in zip(runs, rounds, strict=True)),
            "probe share": median(run["probe seconds"] / run["seconds"] for run in runs),
            "runs": runs,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
