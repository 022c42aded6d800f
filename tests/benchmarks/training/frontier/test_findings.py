"""What the rows of the frontier say."""

from typing import Any

import pytest

from benchmarks.training.frontier.findings import (
    find_saving_costs,
    rank_budgets,
    state_cached_prefix,
    state_saving_costs,
)


def row(arm: str, budget: float, loss: float) -> dict[str, Any]:
    cache = ("filled" if "filled" in arm else "cold") if "above" in arm else None
    return {"arm": arm, "cache": cache, "budget": budget, "validation loss": loss, "first seed's loss": loss}


ROWS = [
    *(row("full", 0.5, 3.0), row("full", 1.0, 2.8), row("LoRA", 0.5, 2.95), row("LoRA", 1.0, 2.85)),
    *(row("LoRA above 2", 0.5, 2.9), row("LoRA above 2", 1.0, 2.85), row("GT-0.5", 0.25, 3.1)),
]


def test_a_cache_is_compared_with_the_best_arm_without_one() -> None:
    assert state_cached_prefix(ROWS) == [
        "a cache of the frozen blocks that the run fills itself has a loss 0.050 lower at 0.5 (LoRA above 2 2.900, "
        "LoRA 2.950); 0.050 higher at 1 (LoRA above 2 2.850, full 2.800), on the first seed",
        "a cache of the frozen blocks that an earlier run has filled, at no cost here, was not run yet",
    ]
    [_, filled] = state_cached_prefix([*ROWS, row("LoRA above 2, filled", 0.5, 2.8)])
    assert filled.endswith("has a loss 0.150 lower at 0.5 (LoRA above 2, filled 2.800, LoRA 2.950), on the first seed")


def test_what_less_work_costs_is_by_the_better_baseline_at_each_budget() -> None:
    whole, costs = find_saving_costs([*ROWS, row("full", 2.0, 2.7), row("LoRA", 0.25, 3.05)])
    assert whole == 1.0
    assert costs == pytest.approx({0.5: 0.15, 0.25: 0.25})
    assert state_saving_costs(ROWS).endswith("costs in validation loss (nats): 0.150 with 50 %")


def test_arms_are_ranked_at_each_budget() -> None:
    assert rank_budgets(ROWS)[1] == "budget 0.5, best first: LoRA above 2 2.900, LoRA 2.950, full 3.000"
