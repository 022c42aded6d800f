"""Writes docs/benchmarks.md, and the figures of docs/policies.md, from the results: none is copied by hand.

python -m benchmarks.page
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.carbon import policy_tables
from benchmarks.report import RESULTS, format_value

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

INTRODUCTION = """# Benchmarks

Each of these is one command, which prints its table, writes `benchmarks/results/NAME.json` and ends with status 1
where something that must hold does not. `python -m benchmarks.page` makes this page of them. FLOPs count a
multiply-accumulate as 2; ρ is the share of full fine-tuning's FLOPs that is asked for.
"""

SECTIONS = {
    "budget": "Asked ρ against what real steps take. Adaptive backpropagation must never spend more, and use it up.",
    "selector": "How long the selection takes, and how close it comes to the optimum. The reference's figures are those"
    " of the paper's published implementation on 2 cores.",
    "paper_costs": "The cost columns of the paper's Tables 2, 3 and 5, from models on the meta device at its settings.",
    "time_memory": "Time and memory of one epoch, probe and selection included.",
    "quality": "Summaries of scientific papers at equal epochs and at equal FLOPs, every arm at the learning rate of"
    " one small grid that does best on the validation part; mean of three seeds. Here an epoch has 18 steps, of which"
    " each probe takes the FLOPs of one or two, and a last epoch that is cut short has paid for a whole one's probe: so"
    " GT-0.7 ends at 1.06 of full fine-tuning's FLOPs. Before AdamW has any state, its update is a sign, for which"
    " Δw · ∂L/∂w and ∂L/∂w choose alike: a single epoch cannot tell them apart. Below full fine-tuning's cost every GT"
    " arm is ahead of the baselines that cost as much or more; at its cost nothing is ahead of full fine-tuning, which"
    " is ρ = 1.",
    "ablations": "The options of adaptive backpropagation, one changed at a time. No tensor that the first epoch"
    " dropped was taken up by the second, so that what became of its optimiser state made no difference.",
    "policies": "Every kind of policy under every gate, on the hourly intensities of a grid that varies (Spain) and of"
    " a clean one (Norway). [How to choose a policy](policies.md) reads this table for you.",
    "own_forecast": "What is planned with where a provider gives no forecast: how much of the saving that perfect"
    " knowledge allows pauses reach by it. Beside the two grids, series that are made up to hold one thing alone.",
    "service": "How the service carries many stored jobs and many watchers. A list page holds 50 jobs, but that of one"
    " status, which few have. The pollers all begin within two seconds, each with a connection of its own and a list:"
    " that rush is the tail of their times. A worker has loaded what jobs need, and forks a process for each: the next"
    " is ready a moment after the last has ended.",
    "dashboard": "What a person with a browser waits for. The curves of the long run are thinned out by the server, so"
    " that no peak is lost; a zoom loads finer ones.",
}


def render_page(results: Path = RESULTS) -> str:
    """The page as Markdown, with a section for each result there is."""
    sections = [
        _section(name, introduction, json.loads((results / f"{name}.json").read_text()))
        for name, introduction in SECTIONS.items()
        if (results / f"{name}.json").is_file()
    ]
    return "\n".join([INTRODUCTION, *sections])


def _section(name: str, introduction: str, result: Mapping[str, Any]) -> str:
    columns = result["columns"]
    machine = result["machine"]
    lines = [
        f"## {result['title']}",
        "",
        introduction,
        "",
        f"`{result['command']}`, {result['date']}, {machine['processor']} with {machine['cores']} cores, "
        f"{machine['gpu'] or 'no GPU'}, Python {machine['python']}, torch {machine['torch']}, "
        f"transformers {machine['transformers']}.",
        "",
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(format_value(row.get(column)) for column in columns)} |" for row in result["rows"]),
        "",
        *(f"- {note}" for note in result["notes"]),
        *(f"- {'Holds' if held else '**Missed**'}: {check}." for check, held in result["checks"].items()),
    ]
    if (RESULTS / f"{name}.svg").is_file():
        lines += ["", f"![{result['title']}](../benchmarks/results/{name}.svg)"]
    return "\n".join([*lines, ""])


def main() -> int:
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render_page())
    policy_tables.PAGE.write_text(policy_tables.fill_measured_blocks(policy_tables.PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
