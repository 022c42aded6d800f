"""What the rows of the frontier say: which arm to take at which budget, and what less work costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report import format_markdown_table
from benchmarks.training.frontier.arms import FULL, GT_BY_GRADIENT, LORA, Cache

BASELINES = (FULL.name, LORA.name)
METHODS = {
    FULL.name: "full fine-tuning",
    LORA.name: "LoRA, rank 16 on all linear layers",
    **{arm.name: f"GreenTrainer, ρ = {arm.rho:g}" for arm in GT_BY_GRADIENT},
}
CACHES: Mapping[Cache, str] = {
    "cold": "the run fills itself",
    "filled": "an earlier run has filled, at no cost here,",
}

Rows = Sequence[Mapping[str, Any]]


def rank_budgets(rows: Rows) -> list[str]:
    """Rank the arms at each budget by validation loss."""
    return [
        f"budget {budget:g}, best first: "
        + ", ".join(f"{row['arm']} {_get_loss(row):.3f}" for row in sorted(_at(rows, budget), key=_get_loss))
        for budget in _list_budgets(rows)
    ]


def state_cached_prefix(rows: Rows) -> list[str]:
    """State for each kind of cache at which budgets the best arm with it has a lower loss than the best without one."""
    return [f"a cache of the frozen blocks that {kind} {_compare_cache(rows, cache)}" for cache, kind in CACHES.items()]


def _compare_cache(rows: Rows, cache: Cache) -> str:
    found = []
    for budget in _list_budgets(rows):
        own = _at(rows, budget)
        cached = min((row for row in own if row["cache"] == cache), key=_get_first_loss, default=None)
        other = min((row for row in own if row["cache"] is None), key=_get_first_loss, default=None)
        if cached and other:
            less = _get_first_loss(other) - _get_first_loss(cached)
            found.append(
                f"{abs(less):.3f} {'lower' if less > 0 else 'higher'} at {budget:g} ({cached['arm']}"
                f" {_get_first_loss(cached):.3f}, {other['arm']} {_get_first_loss(other):.3f})"
            )
    return f"has a loss {'; '.join(found)}, on the first seed" if found else "was not run yet"


def find_saving_costs(rows: Rows) -> tuple[float, dict[float, float]]:
    """Return the largest budget up to one epoch that a baseline was run at, and what each smaller one costs in loss.

    The loss is that of the better baseline at each budget. Raises ValueError where no baseline was run.
    """
    best = {
        budget: min(_get_loss(row) for row in _at(rows, budget) if row["arm"] in BASELINES)
        for budget in sorted({row["budget"] for row in rows if row["arm"] in BASELINES and row["budget"] <= 1})
    }
    whole = max(best)
    return whole, {budget: loss - best[whole] for budget, loss in best.items() if budget < whole}


def state_saving_costs(rows: Rows) -> str:
    """State what a saved share of the FLOPs costs in loss."""
    whole, costs = find_saving_costs(rows)
    said = ", ".join(f"{loss:.3f} with {100 * (1 - budget / whole):.0f} %" for budget, loss in reversed(costs.items()))
    epochs = f"{whole:g} {'epoch' if whole == 1 else 'epochs'}"
    return (
        f"of the FLOPs of {epochs} of full fine-tuning, by the better of full fine-tuning and LoRA, saving a share of"
        f" them costs in validation loss (nats): {said}"
    )


def tabulate_methods(rows: Rows) -> str:
    """Tabulate the validation loss of each method that a job can have, at each budget, as Markdown."""
    budgets = _list_budgets([row for row in rows if row["arm"] in BASELINES])

    def format_loss(arm: str, budget: float) -> str:
        return next((f"{_get_loss(row):.3f}" for row in _at(rows, budget) if row["arm"] == arm), "–")

    return format_markdown_table(
        ["epochs of full fine-tuning", *(f"{budget:g}" for budget in budgets)],
        [[title, *(format_loss(arm, budget) for budget in budgets)] for arm, title in METHODS.items()],
    )


def _list_budgets(rows: Rows) -> list[float]:
    return sorted({row["budget"] for row in rows})


def _at(rows: Rows, budget: float) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["budget"] == budget]


def _get_first_loss(row: Mapping[str, Any]) -> float:
    """Return the loss on the first seed, for arms of which some were run on that alone."""
    loss: float = row["first seed's loss"]
    return loss


def _get_loss(row: Mapping[str, Any]) -> float:
    loss: float = row["validation loss"]
    return loss
