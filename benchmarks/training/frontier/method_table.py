"""Writes the table by which `auto` chooses a method, from the results of the frontier.

    python -m benchmarks.training.frontier.method_table

It has the arms that a job can be trained by, at each budget at which full fine-tuning and LoRA both were run.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig

import greencore.settings.method_choice
from benchmarks.report import RESULTS
from benchmarks.training.finetuning import model_folder
from benchmarks.training.frontier.arms import FULL, GT_BY_GRADIENT, LORA
from benchmarks.training.frontier.prices import ALPHA, RANK
from benchmarks.training.frontier.runs import SCALES
from greencore.settings.method_choice import FILE_NAME, parse_frontier

ARMS: Mapping[str, Mapping[str, Any]] = {
    FULL.name: {"method": "full"},
    LORA.name: {
        "method": "lora",
        "lora": {"rank": RANK, "alpha": ALPHA, "dropout": 0.0, "targets": "all-linear"},
    },
    **{arm.name: {"method": "greentrainer", "rho": arm.rho} for arm in GT_BY_GRADIENT},  # by the default metric
}
NEEDED = {FULL.name, LORA.name}
DATASET = "SciTLDR"


def build_table(report: Mapping[str, Any], *, width: int) -> dict[str, Any]:
    """Return the table of the published results of the frontier, of a model of this width.

    Raises `ValueError` where no budget is complete.
    """
    rows = [row for row in report["rows"] if row["arm"] in ARMS]
    by_budget = {budget: [row for row in rows if row["budget"] == budget] for budget in {row["budget"] for row in rows}}
    complete = [row for _, own in sorted(by_budget.items()) if {row["arm"] for row in own} >= NEEDED for row in own]
    if not complete:
        raise ValueError(f"no budget has runs of both {' and '.join(sorted(NEEDED))}")
    full_steps = {row["budget"]: row["steps"] for row in complete if row["arm"] == FULL.name}
    model, _, size = report["title"].rpartition(": ")[2].partition(", ")
    return {
        "model": model,
        "width": width,
        "data": f"{size} of {DATASET}, {SCALES['small'].batch_size} a step",
        "date": report["date"],
        "seeds": min(len({run["seed"] for run in row["runs"]}) for row in complete),
        "runs": [
            {
                "epochs": row["budget"],
                "steps": full_steps[row["budget"]],
                **ARMS[row["arm"]],
                "learning_rate": row["rate"],
                "loss": round(row["validation loss"], 4),
            }
            for row in complete
        ],
    }


def main() -> int:
    width = AutoConfig.from_pretrained(model_folder()).hidden_size
    table = build_table(json.loads((RESULTS / "frontier.json").read_text()), width=width)
    text = json.dumps(table, indent=1) + "\n"
    parse_frontier(text)
    Path(greencore.settings.method_choice.__file__).with_name(FILE_NAME).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
