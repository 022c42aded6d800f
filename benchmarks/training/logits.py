"""Benchmarks logits at learned positions alone against those of all positions: loss, FLOPs and time of a step.

    python -m benchmarks.training.logits --data FOLDER

FOLDER holds SciTLDR's train.jsonl. The same steps are run both ways in turn, so that the load of the machine falls upon
both alike; their times are CPU seconds.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.report import publish
from benchmarks.training.finetuning import MODEL, model_folder
from greencore.dataset import PromptRow
from greencore.training.batches.batch_shapes import BatchShapes, get_step_shape
from greencore.training.batches.learned_positions import LearnedPositionsCollator
from greencore.training.batches.packing import PackedCollator
from greencore.training.data.prompt_formats import TLDR
from greencore.training.data.tokenisation import Collator, tokenise_rows
from greencore.training.methods.step_costs import StepCosts
from greencore.training.models.loading import load_meta_model, load_model, load_tokenizer

ROWS = 4
MOST_TIME = 0.86  # of the plain step, on padded rows of at most 256 tokens


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.logits")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl")
    parser.add_argument("--steps", type=int, default=12, help="steps that are timed both ways")
    options = parser.parse_args()
    folder = model_folder()
    model, tokenizer = load_model(folder).train(), load_tokenizer(folder)
    lines = (options.data / "train.jsonl").read_text().splitlines()[: options.steps * ROWS]
    given = [PromptRow(row["source"], row["targets"][0]) for row in map(json.loads, lines)]
    assert isinstance(tokenizer.pad_token_id, int)
    pad, pack = Collator(tokenizer.pad_token_id), PackedCollator(model, tokenizer.pad_token_id)
    rows = []
    for length, layout, collate in (
        (128, "padded", pad),
        (256, "padded", pad),
        (512, "padded", pad),
        (512, "packed", pack),
    ):
        examples = tokenise_rows(given, tokenizer, max_length=length, prompt_format=TLDR).examples
        steps = [examples[start : start + ROWS] for start in range(0, len(examples), ROWS)]
        rows.append({"tokens": length, "layout": layout, **compare(model, collate, steps)})
    [target] = [row for row in rows if (row["tokens"], row["layout"]) == (256, "padded")]
    return publish(
        "logits",
        f"{MODEL}: logits at learned positions alone, of those at all positions",
        rows,
        notes=[
            f"{options.steps} steps of {ROWS} rows of SciTLDR, cut to so many tokens, fp32, every tensor trained; FLOPs"
            " and time are shares of the plain step's; floor: the smallest ρ of the longest step, as a share of full"
            " fine-tuning as it is run, and of the plain step",
        ],
        checks={
            f"at 256 tokens a step takes at most {MOST_TIME} of the plain step's time": target["time"] <= MOST_TIME
        },
        options="--data FOLDER",
    )


def compare(model: Any, collate: Any, steps: Any) -> dict[str, Any]:
    """Run the steps both ways in turn, and compare their losses, FLOPs and CPU seconds."""
    ways = {"plain": collate, "learned": LearnedPositionsCollator(collate)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    differences, shapes, learned = [], [], []
    for number, rows in enumerate(steps):
        losses = {}
        for way in sorted(ways, reverse=bool(number % 2)):
            batch = ways[way](rows)
            started = time.process_time()
            loss = model(**batch).loss
            loss.backward()
            seconds[way].append(time.process_time() - started)
            losses[way] = float(loss.detach())
            model.zero_grad()
        differences.append(abs(losses["learned"] - losses["plain"]) / losses["plain"])
        shapes.append(get_step_shape(ways["learned"](rows), encoder=False))
        learned.append(sum(label >= 0 for row in rows for label in row.labels) / sum(len(row.labels) for row in rows))
    longest = max(shapes, key=lambda shape: shape.lengths)
    low, high = (tuple(choose(shape.lengths[i] for shape in shapes) for i in range(2)) for choose in (min, max))
    costs = StepCosts(load_meta_model(model_folder()), BatchShapes(longest.rows, low, high, learned_only=True))
    cheapest = min(costs.step_flops((name,), longest) for name in costs.tensors)
    return {
        "learned": sum(learned) / len(learned),
        "loss differs by": max(differences),
        "FLOPs": sum(map(costs.full_flops, shapes)) / sum(map(costs.plain_full_flops, shapes)),
        "time": median(one / other for one, other in zip(seconds["learned"], seconds["plain"], strict=True)),
        "floor": cheapest / costs.full_flops(longest),
        "floor of plain": cheapest / costs.plain_full_flops(longest),
    }


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main())
