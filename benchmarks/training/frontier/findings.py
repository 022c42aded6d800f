"""What the rows of the frontier say: which arm to take at which budget, and what less work costs."""

from collections.abc import Mapping, Sequence
from typing import Any

BASELINES = ("full", "LoRA")

Rows = Sequence[Mapping[str, Any]]


def rank_budgets(rows: Rows) -> list[str]:
    """Rank the arms at each budget by validation loss."""
    return [
        f"budget {budget:g}, best first: "
        + ", ".join(f"{row['arm']} {_get_loss(row):.3f}" for row in sorted(_at(rows, budget), key=_get_loss))
        for budget in _list_budgets(rows)
    ]


def state_cached_prefix(rows: Rows) -> str:
    """State at which budgets an arm with a cached prefix has a lower loss than every other arm."""
    found = []
    for budget in _list_budgets(rows):
        own = _at(rows, budget)
        cached = min((row for row in own if row["cached"]), key=_get_loss, default=None)
        other = min((row for row in own if not row["cached"]), key=_get_loss, default=None)
        if cached and other:
            on = "on the frontier" if _get_loss(cached) < _get_loss(other) else "not on the frontier"
            found.append(
                f"{on} at {budget:g} ({cached['arm']} {_get_loss(cached):.3f}, {other['arm']} {_get_loss(other):.3f})"
            )
    return f"a cached prefix is {'; '.join(found)}" if found else "no arm with a cached prefix was run yet"


def find_saving_costs(rows: Rows) -> dict[float, float]:
    """Return the loss above that of a whole epoch's FLOPs at each smaller budget, both by the better baseline."""
    best = {
        budget: min((_get_loss(row) for row in _at(rows, budget) if row["arm"] in BASELINES), default=None)
        for budget in _list_budgets(rows)
    }
    whole = best.get(1.0)
    if whole is None:
        return {}
    return {budget: loss - whole for budget, loss in best.items() if loss is not None and budget < 1}


def state_saving_costs(rows: Rows) -> str:
    """State what a saved share of an epoch's FLOPs costs in loss."""
    costs = sorted(find_saving_costs(rows).items(), reverse=True)
    said = ", ".join(f"{loss:.3f} with {100 * (1 - budget):.0f} % saved" for budget, loss in costs)
    return f"of an epoch's FLOPs by the better of full fine-tuning and LoRA, a run stopped early ends higher by {said}"


def _list_budgets(rows: Rows) -> list[float]:
    return sorted({row["budget"] for row in rows})


def _at(rows: Rows, budget: float) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["budget"] == budget]


def _get_loss(row: Mapping[str, Any]) -> float:
    loss: float = row["validation loss"]
    return loss
