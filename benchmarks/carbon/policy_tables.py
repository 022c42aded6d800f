"""The measured blocks of docs/policies.md, from the results of the policies."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.report import format_markdown_table

GATES = ("none", "defer", "pause")
FULL = "ρ = 1"

CHOICES = (
    ("less work, always by the same share", "`constant`", "constant", "none"),
    ("less work while the grid is dirty, by bounds that anyone can check", "`steps`", "steps", "none"),
    ("the same without jumps", "`linear`", "linear", "none"),
    (
        "less work while the grid is dirty by its own standards, with no bounds to keep",
        "`percentile`",
        "percentile",
        "none",
    ),
    ("a run that emits no more than so much", "`budget`", "budget", "none"),
    ("to spend what the learning is worth, and no more", "`price`", "price", "none"),
    ("all of the work; it can wait, but not be interrupted", "`constant` with ρ = 1, gate `defer`", FULL, "defer"),
    ("all of the work; it can wait and be interrupted", "`constant` with ρ = 1, gate `pause`", FULL, "pause"),
    ("both savings, and no surprises", "`constant`, gate `pause`", "constant", "pause"),
    ("as much learning as a budget can buy", "`budget`, gate `pause`", "budget", "pause"),
)
"""A user's aim, the choice for it, and the policy and gate of the row that shows it."""

KINDS = ("constant", "steps", "linear", "percentile", "budget", "price")

Rows = Sequence[Mapping[str, Any]]


def find_row(rows: Rows, grid: str, policy: str, gate: str, forecast: str = "own", min_saving: float = 0.05) -> Any:
    """Return the row of a policy under a gate."""
    wanted = (grid, policy, gate, forecast, min_saving)
    names = ("grid", "policy", "gate", "forecast", "min_saving")
    [row] = [row for row in rows if tuple(row[name] for name in names) == wanted]
    return row


def _choices(rows: Rows) -> str:
    grids = _grids(rows)
    lines = []
    for wish, choice, policy, gate in CHOICES:
        found = [find_row(rows, grid, policy, gate) for grid in grids]
        lines.append([wish, choice, *map(_saved, found), " / ".join(_percent(row["work_share"], 0) for row in found)])
    saved = [f"saved on {grid}: less work + moved in time" for grid in grids]
    return format_markdown_table(["you want", "choose", *saved, "FLOPs done"], lines)


def _kind(kind: str) -> Callable[[Rows], str]:
    def table(rows: Rows) -> str:
        grids = _grids(rows)
        header = ["gate", *(f"{grid}: {name}" for grid in grids for name in ("FLOPs", "less work", "moved in time"))]
        if kind == "budget":
            header += [f"{grid}: epochs" for grid in grids]
        lines = []
        for gate in GATES:
            found = [find_row(rows, grid, kind, gate) for grid in grids]
            shares = [row[name] for row in found for name in ("work_share", "less_work", "moved_in_time")]
            epochs = [f"{row['epochs_run']:.1f}" for row in found] if kind == "budget" else []
            lines.append([f"`{gate}`", *map(_percent, shares), *epochs])
        bodies = {grid: json.dumps(find_row(rows, grid, kind, "none")["body"]) for grid in grids}
        others = [f"{grid}: `{body}`." for grid, body in bodies.items() if body != bodies[grids[0]]]
        return "\n".join([format_markdown_table(header, lines), *(["", *others] if others else [])])

    return table


def _forecasts(rows: Rows) -> str:
    grids = _grids(rows)
    names = ("moved in time", "of the oracle's", "over the oracle")
    lines = []
    for forecast in ("perfect", "own", "persistence"):
        for min_saving in (0.05, 0.0):
            found = [find_row(rows, grid, FULL, "pause", forecast, min_saving) for grid in grids]
            figures = [
                figure
                for row in found
                for figure in (
                    _percent(row["moved_in_time"]),
                    _percent(row["oracle_share"]),
                    _percent(row["emissions_g"] / row["oracle_g"] - 1, 2),
                )
            ]
            lines.append([forecast, f"{min_saving:g}", *figures])
    return format_markdown_table(
        ["forecast", "min_saving", *(f"{grid}: {name}" for grid in grids for name in names)], lines
    )


def _setting(rows: Rows) -> str:
    baselines = [f"{find_row(rows, grid, FULL, 'none')['baseline_g']:.0f} gCO2e on {grid}" for grid in _grids(rows)]
    return f"Mean of {rows[0]['starts']:,} starts a grid; ρ = 1 at once emits {' and '.join(baselines)}."


BLOCKS: Mapping[str, Callable[[Rows], str]] = {
    "setting": _setting,
    "choices": _choices,
    "forecasts": _forecasts,
    **{kind: _kind(kind) for kind in KINDS},
}
"""How each block is written from the rows of the results."""


def _grids(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["grid"] for row in rows))


def _saved(row: Mapping[str, Any]) -> str:
    less, moved = row["less_work"], row["moved_in_time"]
    return f"**{_percent(less + moved)}** = {_percent(less)} + {_percent(moved)}".replace(" % +", " +").removesuffix(
        " %"
    )


def _percent(share: float, digits: int = 1) -> str:
    shown = f"{100 * share:.{digits}f}"
    return f"{shown.removeprefix('-') if float(shown) == 0 else shown} %"
