"""Benchmarks the quality of weights in bfloat16 with float32 masters, of the selected tensors alone or of all.

    python -m benchmarks.training.precision --data FOLDER [--rate LEARNING_RATE]

The data and the scale are those of `benchmarks.training.quality --quick`, over four epochs: the selection takes up a
tensor again two epochs after it has dropped it, and only then does it matter what became of its master.
"""

import sys
from dataclasses import replace

from benchmarks.report import publish
from benchmarks.training.finetuning import Arm
from benchmarks.training.quality import QUICK, Comparison, average_runs, build_parser

RHO = 0.5
ARMS = (
    Arm("fp32", "greentrainer", RHO),
    Arm("bf16, masters of the selected", "greentrainer", RHO, bf16_weights=True),
    Arm("bf16, masters kept", "greentrainer", RHO, {"optimizer_state": "keep"}, bf16_weights=True),
)
SEEDS = (0, 1)


def main() -> int:
    parser = build_parser("benchmarks.training.precision")
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate of every run")
    options = parser.parse_args()
    comparison = Comparison(options.data, replace(QUICK, epochs=4), options.work)
    rows = [
        average_runs(arm, [comparison.run(arm, options.rate, seed, comparison.full_steps) for seed in SEEDS])
        for arm in ARMS
    ]
    return publish(
        "precision",
        f"GT-{RHO:g}, {comparison.full_steps} steps in 4 epochs, learning rate {options.rate:g}, {len(SEEDS)} seeds",
        rows,
        columns=["arm", "validation loss", "perplexity", "ROUGE", "share"],
        options=f"--data FOLDER --rate {options.rate:g}",
    )


if __name__ == "__main__":
    sys.exit(main())
