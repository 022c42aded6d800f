"""The table by which `auto` chooses a method has the frontier's results."""

import json
from typing import Any

import pytest

from benchmarks.training.frontier.method_table import build_table
from greencore.settings.method_choice import parse_frontier


def report_of(*rows: tuple[str, float, float, float]) -> dict[str, Any]:
    return {
        "title": "Loss against FLOPs: SmolLM2-135M, 160 rows",
        "date": "2026-12-01",
        "rows": [
            {
                "arm": arm,
                "budget": budget,
                "rate": rate,
                "validation loss": loss,
                "steps": round(40 * budget),
                "runs": [{"seed": 0}] * 2,
            }
            for arm, budget, rate, loss in rows
        ],
    }


def test_the_table_has_the_arms_that_a_job_can_have_at_complete_budgets() -> None:
    report = report_of(
        ("full", 0.5, 3e-4, 2.97),
        ("LoRA", 0.5, 1e-3, 2.95),
        ("GT-0.7 by gradient", 0.5, 3e-4, 2.98),
        ("LISA", 0.5, 3e-4, 2.9),
        ("full", 1.0, 1e-4, 2.9),
    )
    frontier = parse_frontier(json.dumps(build_table(report, width=576)))
    assert (frontier.model, frontier.width, frontier.data, frontier.seeds) == (
        "SmolLM2-135M",
        576,
        "160 rows of SciTLDR, 4 a step",
        1,
    )
    assert [(run.title, run.steps, run.loss) for run in frontier.list_runs(1.0, 1000)] == [
        ("LoRA of rank 16", 20, 2.95),
        ("full fine-tuning", 20, 2.97),
        ("GreenTrainer at ρ = 0.7", 20, 2.98),
    ]
    with pytest.raises(ValueError, match="no budget has runs of both LoRA and full"):
        build_table(report_of(("full", 1.0, 1e-4, 2.9)), width=576)
