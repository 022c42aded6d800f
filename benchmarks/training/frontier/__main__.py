"""Benchmarks the loss that each method reaches for its FLOPs, energy and seconds, at budgets below and above an epoch.

    python -m benchmarks.training.frontier --data FOLDER [--scale whole] [--report-only]

FOLDER has train.jsonl, validation.jsonl and test.jsonl with rows {"source", "targets": [...]}, as SciTLDR's. Each arm,
learning rate, seed and budget is a run with a linear schedule over its own steps, as many as the budget pays for. The
rate of each arm and budget is that of a small grid with the lowest validation loss on the first seed. Finished runs are
kept under --work: an interrupted benchmark goes on from them, and --report-only reports those that there are.

Arms with a cached prefix are computed in full and counted as if the forward pass of frozen blocks were read from a
cache from the second time on that a row is met with them frozen. In float32 what a cache holds is what would be
computed, so that the loss is the same.
"""

import argparse
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.report import RESULTS, publish
from benchmarks.training.finetuning import MODEL
from benchmarks.training.frontier.arms import PlannedRun, plan_confirmation, plan_rate_search
from benchmarks.training.frontier.findings import rank_budgets, state_cached_prefix, state_saving_costs
from benchmarks.training.frontier.report import (
    choose_rate,
    find_rates,
    format_rouge,
    plot,
    state_filling,
    state_steps,
    tabulate,
)
from benchmarks.training.frontier.runs import SCALES, Frontier, Scale

SEEDS = (0, 1, 2)
COLUMNS = [
    *("arm", "budget", "FLOPs", "rate", "steps", "validation loss", "± sd", "R1/R2/RL", "CPU seconds", "Wh"),
    "rates tried",
]


def run_all(frontier: Frontier) -> None:
    """Do all runs that are not kept yet, in the order of the plan."""

    def run(planned: PlannedRun) -> None:
        if frontier.find(planned) is not None:
            return
        tried = find_rates(frontier, planned.arm, planned.budget, seed=planned.seed).values()
        frontier.run(planned, best=min((record["validation_loss"] for record in tried), default=float("inf")))
        print(json.dumps(frontier.find(planned), ensure_ascii=False), flush=True)

    for planned in plan_rate_search(SEEDS[0]):
        run(planned)
    for planned in plan_confirmation(partial(choose_rate, frontier, seed=SEEDS[0]), SEEDS):
        run(planned)


def report(frontier: Frontier, scale: Scale, name: str, *, with_steps: bool) -> int:
    """Publish the runs that are kept, and return the exit status."""
    untrained, rows = frontier.score_untrained(), tabulate(frontier, SEEDS)
    plot(rows, untrained["validation_loss"], RESULTS / "frontier.svg")
    planned = set(plan_rate_search(SEEDS[0]))
    sizes = {split: size or "all" for split, size in asdict(scale.rows).items()}
    return publish(
        "frontier",
        f"Loss against FLOPs: {MODEL}, {sizes['train']} rows",
        rows,
        columns=COLUMNS,
        notes=[
            *state_cached_prefix(rows),
            *state_filling(frontier),
            *rank_budgets(rows),
            state_saving_costs(rows),
            *(state_steps(frontier) if with_steps else []),
            f"untrained: validation loss {untrained['validation_loss']:.3f}, R1/R2/RL "
            + format_rouge([untrained["rouge"]]),
            f"{sizes['validation']} validation and {sizes['test']} test rows, rows cut to {sizes['max_length']} tokens,"
            f" {scale.batch_size} rows a step; budget and FLOPs in epochs of full fine-tuning, logits at learned"
            " positions alone in every arm; probes included",
            "arms without ± were run on the first seed alone",
            "arms named above a block train the blocks above it; their FLOPs, CPU seconds and Wh are those with the"
            " frozen blocks' output read from a cache once it is known, which is emulated",
            "CPU seconds and Wh of a machine that other processes used at the same time; threads that wait count too",
            f"{sum(frontier.find(run) is not None for run in planned)} of the {len(planned)} runs of the first seed are"
            " finished: arms and rates that are not in the table are not run yet",
        ],
        options=f"--data FOLDER{'' if name == 'small' else f' --scale {name}'}",
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.frontier")
    parser.add_argument("--data", type=Path, required=True, help="folder with train, validation and test .jsonl")
    parser.add_argument("--work", type=Path, default=Path("build/frontier"), help="where finished runs are kept")
    parser.add_argument("--scale", choices=list(SCALES), default="small", help="rows of the splits and their length")
    parser.add_argument("--report-only", action="store_true", help="report the runs that are kept")
    parser.add_argument("--no-steps", action="store_true", help="leave out the steps that budgets pay for, of each arm")
    options = parser.parse_args()
    scale = SCALES[options.scale]
    frontier = Frontier(options.data, scale, options.work)
    if not options.report_only:
        run_all(frontier)
    return report(frontier, scale, options.scale, with_steps=not options.no_steps)


if __name__ == "__main__":
    sys.exit(main())
