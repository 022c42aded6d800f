"""Benchmarks the options of adaptive backpropagation: the same run with one of them changed at a time.

    python -m benchmarks.training.ablations --data FOLDER [--rate LEARNING_RATE]

The data and the scale are those of `benchmarks.training.quality --quick`, over three epochs: by the paper's importance
the selection of the third is that of the first again.
"""

import sys
from dataclasses import replace
from statistics import mean

from benchmarks.report import publish
from benchmarks.training.finetuning import Arm
from benchmarks.training.quality import QUICK, Comparison, average_runs, build_parser

RHO = 0.5
ARMS = (
    Arm("as it is by default", "greentrainer", RHO),
    Arm("metric=dw_grad", "greentrainer", RHO, {"metric": "dw_grad"}),
    Arm("probe_batches=1", "greentrainer", RHO, {"probe_batches": 1}),
    Arm("reselect_every=9", "greentrainer", RHO, {"reselect_every": 9}),
)
SEEDS = (0,)
EPOCHS = 3


def main() -> int:
    parser = build_parser("benchmarks.training.ablations")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate of every run")
    options = parser.parse_args()
    comparison = Comparison(options.data, replace(QUICK, epochs=EPOCHS), options.work)
    rows = []
    for arm in ARMS:
        runs = [comparison.run(arm, options.rate, seed, comparison.full_steps) for seed in SEEDS]
        rows.append({**average_runs(arm, runs), "same tensors": mean(run["same_tensors"] for run in runs)})
    return publish(
        "ablations",
        f"GT-{RHO:g}, {comparison.full_steps} steps in {EPOCHS} epochs, learning rate {options.rate:g},"
        f" {'seed' if len(SEEDS) == 1 else 'seeds'} {', '.join(map(str, SEEDS))}",
        rows,
        columns=[
            "arm",
            "validation loss",
            "perplexity",
            "ROUGE",
            "share",
            "share with probes",
            "same tensors",
            "CPU seconds",
        ],
        notes=["same tensors: mean Jaccard index of the tensors of an epoch and of the next one"],
        options=f"--data FOLDER --rate {options.rate:g}",
    )


if __name__ == "__main__":
    sys.exit(main())
