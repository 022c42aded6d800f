"""Generates the measured blocks of docs/policies.md from the results of benchmarks."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS
from benchmarks.training.frontier.findings import state_saving_costs

PAGE = Path(__file__).parents[2] / "docs" / "policies.md"

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


def fill_measured_blocks(page: str, results: Path = RESULTS) -> str:
    """Replace the text between each `<!-- measured: NAME -->` and `<!-- end -->` of the page by the generated one.

    A block whose results are not in the folder stays. Raises KeyError for an unknown name.
    """

    def block(match: re.Match[str]) -> str:
        source, describe = BLOCKS[match[2]]
        file = results / f"{source}.json"
        if not file.is_file():
            return match[0]
        return f"{match[1]}\n{describe(json.loads(file.read_text())['rows'])}\n{match[3]}"

    return re.sub(r"(<!-- measured: ([\w-]+) -->)\n.*?\n?(<!-- end -->)", block, page, flags=re.DOTALL)


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
    return _table(["you want", "choose", *saved, "FLOPs done"], lines)


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
        return "\n".join([_table(header, lines), *(["", *others] if others else [])])

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
    return _table(["forecast", "min_saving", *(f"{grid}: {name}" for grid in grids for name in names)], lines)


def _setting(rows: Rows) -> str:
    baselines = [f"{find_row(rows, grid, FULL, 'none')['baseline_g']:.0f} gCO2e on {grid}" for grid in _grids(rows)]
    return f"Mean of {rows[0]['starts']:,} starts a grid; ρ = 1 at once emits {' and '.join(baselines)}."


def _learning(rows: Rows) -> str:
    return f"Measured on SmolLM2-135M ([benchmarks](benchmarks.md)): {state_saving_costs(rows)}."


BLOCKS: Mapping[str, tuple[str, Callable[[Rows], str]]] = {
    "setting": ("policies", _setting),
    "choices": ("policies", _choices),
    "forecasts": ("policies", _forecasts),
    **{kind: ("policies", _kind(kind)) for kind in KINDS},
    "learning": ("frontier", _learning),
}
"""The results that each block describes, and how."""


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


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines))
