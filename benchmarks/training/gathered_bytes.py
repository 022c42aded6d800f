"""Measures the bytes that the processes of a sharded model exchange in a step: with what is frozen gathered, and whole.

    python -m benchmarks.training.gathered_bytes [--processes N]

A Llama of 4 blocks with random weights is trained on a CPU (gloo) in steps of two micro-batches: all of it, or its top
block alone. The bytes are those of the last step, as each process has them whole: it receives all but its own part.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from benchmarks.report import format_markdown_table
from greencore.agents.agent import run_agent
from greencore.training.data.tokenisation import Collator, Example
from greencore.training.methods.callback import GreenTrainerCallback
from greencore.training.models.loading import load_model
from greencore.training.models.sharding import count_gathered
from greencore.training.processes import get_rank, join_processes, leave_processes

PARTS, STEPS, TOKENS = 2, 5, 32
BELOW_TOP = ("model.embed_tokens.*", "model.layers.[0-2].*", "model.norm.*", "lm_head.*")
CASES: dict[str, tuple[tuple[str, ...], bool]] = {  # what is never trained, and whether it stays whole
    "everything": ((), False),
    "top block, the rest gathered": (BELOW_TOP, False),
    "top block, the rest whole": (BELOW_TOP, True),
}
GATHER, SCATTER = "all_gather_single", "reduce_scatter_single"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.gathered_bytes")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=512,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        LlamaForCausalLM(config).save_pretrained(folder / "model")
        run_agent(measure_cases, name, processes=options.processes, folder=name)
        rows = json.loads((folder / "rows.json").read_text())
    print(format_markdown_table(list(rows[0]), [[str(cell) for cell in row.values()] for row in rows]))
    return 0


def measure_cases(name: str) -> None:
    """Measure the cases in this process, and write the table's rows, which are those of the first one."""
    join_processes()
    folder = Path(name)
    rows = [{"trained": case, **measure(folder, *settings)} for case, settings in CASES.items()]
    if get_rank() == 0:
        (folder / "rows.json").write_text(json.dumps(rows))
    leave_processes()


def measure(folder: Path, never_train: tuple[str, ...], whole: bool) -> dict[str, Any]:
    """Train some steps, and return the exchanged bytes of the last."""
    model = load_model(folder / "model", torch.float32, shards=int(os.environ["WORLD_SIZE"]))
    most = count_gathered(model)[1] * 4
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 512, (64, TOKENS), generator=draw).tolist()
    callback = GreenTrainerCallback(1.0, never_train=never_train, keep_whole=whole)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder / "run"),
            max_steps=STEPS,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=PARTS,
            save_strategy="no",
            use_cpu=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=[Example(row, row) for row in ids],
        data_collator=Collator(0),
        callbacks=[callback],
    )
    gathered, scattered = list[int](), list[int]()

    def in_last_step(sizes: list[int]) -> Callable[[int], None]:
        return lambda size: sizes.append(size) if trainer.state.global_step == STEPS - 1 else None

    with observe(GATHER, in_last_step(gathered)), observe(SCATTER, in_last_step(scattered)):
        trainer.train()
    return {
        "gatherings": len(gathered),
        "gathered MiB": f"{sum(gathered) / 2**20:.2f}",
        "reductions": len(scattered),
        "reduced MiB": f"{sum(scattered) / 2**20:.2f}",
        "largest gathering, of the predicted": f"{max(gathered, default=0) / most:.2f}",
    }


@contextmanager
def observe(collective: str, record: Callable[[int], None]) -> Iterator[None]:
    """Record the whole bytes of each of FSDP2's collectives of a kind, `GATHER` or `SCATTER`, within the block."""
    act = getattr(torch.distributed, collective)

    def observed(output: torch.Tensor, input: torch.Tensor, *args: Any, **options: Any) -> Any:
        record(max(output.nbytes, input.nbytes))
        return act(output, input, *args, **options)

    with patch.object(torch.distributed, collective, observed):
        yield


if __name__ == "__main__":
    sys.exit(main())
