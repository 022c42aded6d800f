"""Benchmarks padded, packed and length-grouped batches: the FLOPs that `auto` goes by, and the time of their steps.

    python -m benchmarks.training.layouts --data FOLDER

FOLDER holds SciTLDR's train.jsonl, rows {"source", "targets": [...]}. Steps of several lengths are timed on one core,
padded ones with a padding mask and packed ones with the positions of their rows, each with few logits and with all; an
epoch's time is the sum over its batches of the time at their lengths and logits, interpolated.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks.report import publish
from benchmarks.training.finetuning import MODEL, model_folder
from greencore.backprop.cost.by_length import Lengths
from greencore.dataset import PromptRow, Row, TextRow
from greencore.settings.layout_choice import GROUPING_MIN_SAVING, PACKING_MIN_SAVING
from greencore.training.batches.batch_layout import BatchLayout, predict_relative_cost
from greencore.training.batches.batch_shapes import row_lengths
from greencore.training.batches.learned_positions import find_learned_positions
from greencore.training.batches.packing import PackedCollator
from greencore.training.batches.positions import PositionLimits
from greencore.training.data.prompt_formats import TLDR
from greencore.training.data.tokenisation import Collator, Example, tokenise_rows
from greencore.training.models.loading import load_model, load_tokenizer

PADDED_ROWS = 4
PADDED_LENGTHS = (32, 96, 224, 384)
PACKED_ROW_LENGTH = 48
PACKED_LENGTHS = (96, 384, 960, 1920)
FEW_LOGITS = 8
MICRO_BATCHES = (2, 4, 8)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.layouts")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl")
    parser.add_argument("--rounds", type=int, default=3, help="times that each step is timed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = model_folder()
    model = load_model(folder).train()
    seconds = time_steps(model, options.rounds)
    lengths = read_lengths(options.data / "train.jsonl", folder)
    rows = [
        row
        for name, data in lengths.items()
        for amount in MICRO_BATCHES
        for row in compare(model, name, data, amount, seconds)
    ]
    chosen = [row for row in rows if row["auto"]]
    return publish(
        "layouts",
        f"{MODEL}: an epoch in padded, packed and length-grouped batches",
        rows,
        notes=[
            "FLOPs and time are those of the layout over those of padded, shuffled batches; padding is the share of all"
            " tokens; tokens: the mean length of a row, learned: those of them that have logits",
            f"auto packs from a predicted saving of {PACKING_MIN_SAVING:.0%} of the FLOPs on, else groups from"
            f" {GROUPING_MIN_SAVING:.0%} on",
            f"CPU seconds on one core, fp32, {options.rounds} rounds; padded steps of {PADDED_ROWS} rows of"
            f" {', '.join(map(str, PADDED_LENGTHS))} tokens; packed ones of {', '.join(map(str, PACKED_LENGTHS))}",
            "abstracts: SciTLDR's rows, a summary after its abstract; summaries: the summaries alone; mixed: every"
            " second row without its abstract",
        ],
        checks={
            "what auto chooses takes less time than padded, shuffled batches": all(row["time"] < 1 for row in chosen),
            "auto chooses one of two layouts that both save a fifth of the time or more": all(
                one["auto"] or other["auto"]
                for one, other in zip(rows[::2], rows[1::2], strict=True)
                if max(one["time"], other["time"]) <= 0.8
            ),
        },
        options="--data FOLDER",
    )


def read_lengths(file: Path, folder: Path) -> dict[str, list[Lengths]]:
    """Return the tokens of the rows of three data sets, by name."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    full: list[Row] = [PromptRow(row["source"], row["targets"][0]) for row in rows]
    short: list[Row] = [TextRow(row["targets"][0]) for row in rows]
    mixed = [one if index % 2 else other for index, (one, other) in enumerate(zip(full, short, strict=True))]
    tokenizer = load_tokenizer(folder)
    return {
        name: row_lengths(
            tokenise_rows(part, tokenizer, max_length=512, prompt_format=TLDR).examples,
            encoder=False,
            learned_only=True,
        )
        for name, part in (("abstracts", full), ("summaries", short), ("mixed", mixed))
    }


def compare(
    model: PreTrainedModel, name: str, lengths: Sequence[Lengths], amount: int, seconds: Mapping[bool, Any]
) -> list[dict[str, Any]]:
    """Return a row for packed and for grouped batches of `amount` rows of a data set."""
    padded = BatchLayout(amount, amount, learned_only=True)
    layouts = {"packed": replace(padded, packing=True), "grouped": replace(padded, group_by_length=True)}
    flops = {key: predict_relative_cost(model, lengths, layout) for key, layout in layouts.items()}
    plain, plain_time = predict_relative_cost(model, lengths, padded), predict_seconds(lengths, padded, seconds)
    packs = flops["packed"] <= (1 - PACKING_MIN_SAVING) * plain
    groups = not packs and flops["grouped"] <= (1 - GROUPING_MIN_SAVING) * plain
    return [
        {
            "rows": name,
            "tokens": float(np.mean([row[0] for row in lengths])),
            "learned": float(np.mean([row[1] for row in lengths])),
            "a batch": amount,
            "padding": compute_padding(lengths, padded),
            "layout": key,
            "FLOPs": flops[key] / plain,
            "time": predict_seconds(lengths, layout, seconds) / plain_time,
            "auto": {"packed": packs, "grouped": groups}[key],
        }
        for key, layout in layouts.items()
    ]


def compute_padding(lengths: Sequence[Lengths], layout: BatchLayout) -> float:
    """Compute the share of padding in the tokens of the layout's batches."""
    counted, epochs = layout.count_shapes(lengths, PositionLimits())
    total = sum(shape.rows * shape.lengths[0] * count for shape, count in counted.items()) / epochs
    return 1 - sum(length for length, _ in lengths) / total


def predict_seconds(lengths: Sequence[Lengths], layout: BatchLayout, seconds: Mapping[bool, Any]) -> float:
    """Sum the seconds of an epoch's steps, each interpolated to its length and linearly to its logits."""
    counted, epochs = layout.count_shapes(lengths, PositionLimits())
    known, few, all_logits = seconds[layout.packing]
    total = 0.0
    for shape, count in counted.items():
        length, learned = shape.lengths
        least, most = float(np.interp(length, known, few)), float(np.interp(length, known, all_logits))
        part = (learned - FEW_LOGITS) / max(length - FEW_LOGITS, 1)
        total += count * (1 if layout.packing else shape.rows / PADDED_ROWS) * (least + part * (most - least))
    return total / epochs


def time_steps(model: PreTrainedModel, rounds: int) -> dict[bool, Any]:
    """Time steps of each length: for packed (True) and padded (False) the lengths and the CPU seconds, from 0 on.

    The seconds are those with few logits, and with as many as there are tokens.
    """
    pad, pack = Collator(0), PackedCollator(model, 0)
    row = Example((1,) * PACKED_ROW_LENGTH, (1,) * PACKED_ROW_LENGTH)
    whole = {
        **{(False, n): pad([Example((1,) * n, (1,) * n)] * PADDED_ROWS) for n in PADDED_LENGTHS},
        **{(True, n): pack([row] * (n // PACKED_ROW_LENGTH)) for n in PACKED_LENGTHS},
    }
    batches = {}
    for (packed, length), batch in whole.items():
        learned = find_learned_positions(batch["labels"])
        batches[packed, length, True] = {**batch, **learned}
        batches[packed, length, False] = {
            **batch,
            **{name: part[:, :FEW_LOGITS].contiguous() for name, part in learned.items()},
        }
    measured: dict[tuple[bool, int, bool], list[float]] = {key: [] for key in batches}
    for _ in range(rounds):
        for key, batch in batches.items():
            started = time.process_time()
            model(**batch).loss.backward()
            measured[key].append(time.process_time() - started)
            model.zero_grad()
    return {
        packed: (
            [0, *lengths],
            *([0.0, *(median(measured[packed, length, every]) for length in lengths)] for every in (False, True)),
        )
        for packed, lengths in ((False, PADDED_LENGTHS), (True, PACKED_LENGTHS))
    }


if __name__ == "__main__":
    sys.exit(main())
