"""Benchmarks the options of adaptive backpropagation: the same run with one of them changed at a time.

    python -m benchmarks.training.ablations --data FOLDER [--rate LEARNING_RATE]

The data and the scale are those of `benchmarks.training.quality --quick`, over two epochs, so that the selection
changes.
"""

import sys
from dataclasses import replace

from benchmarks.report import publish
from benchmarks.training.finetuning import Arm
from benchmarks.training.quality import QUICK, Comparison, average_runs, build_parser

RHO = 0.5
ARMS = (
    Arm("as it is by default", "greentrainer", RHO),
    Arm("optimizer_state=keep", "greentrainer", RHO, {"optimizer_state": "keep"}),
    Arm("probe_batches=4", "greentrainer", RHO, {"probe_batches": 4}),
    Arm("reselect_every=9", "greentrainer", RHO, {"reselect_every": 9}),
)
SEEDS = (0, 1)


def main() -> int:
    parser = build_parser("benchmarks.training.ablations")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate of every run")
    options = parser.parse_args()
    comparison = Comparison(options.data, replace(QUICK, epochs=2), options.work)
    rows = [
        average_runs(arm, [comparison.run(arm, options.rate, seed, comparison.full_steps) for seed in SEEDS])
        for arm in ARMS
    ]
    return publish(
        "ablations",
        f"GT-{RHO:g}, {comparison.full_steps} steps in 2 epochs, learning rate {options.rate:g}, {len(SEEDS)} seeds",
        rows,
        columns=["arm", "validation loss", "perplexity", "ROUGE", "share", "share with probes", "CPU seconds"],
        options=f"--data FOLDER --rate {options.rate:g}",
    )


if __name__ == "__main__":
    sys.exit(main())
