"""Generates docs/benchmarks.md, and the measured blocks of other documents, from benchmarks/results.

python -m benchmarks.page
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measured_blocks import PAGES, fill_measured_blocks
from benchmarks.report import RESULTS, format_value

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

INTRODUCTION = """# Benchmarks

Each benchmark is one command, which prints its table, writes `benchmarks/results/NAME.json` and exits with status 1
where a check fails. `python -m benchmarks.page` generates this page from the results. A multiply-accumulate counts as 2
FLOPs; ρ is the requested share of full fine-tuning's FLOPs.
"""

SECTIONS = {
    "budget": "Requested ρ against the FLOPs of real steps. Adaptive backpropagation must use its budget, and no more.",
    "selector": "Time of the selection, and its distance from the optimum. The reference is the paper's published"
    " implementation on 2 cores.",
    "paper_costs": "The cost columns of the paper's Tables 2, 3 and 5, from models on the meta device at its settings.",
    "time_memory": "Time and memory of one epoch, probe (`probe_batches` of 1) and selection included.",
    "logits": "The output embedding computes logits where something is learned, and nothing else of a step changes.",
    "layouts": "Where packing and grouping by length pay. Grouped steps take the time that their FLOPs suggest; packed"
    " ones up to 1.2 times as much, since attention computes what its mask hides, so `auto` asks more of them. Where"
    " both pay it packs, since the rows of a step then stay a random sample.",
    "peak_memory": "The peak memory that a job's preparation predicts from a step on tensors without data.",
    "quality": "Summaries of scientific papers at equal epochs and at equal FLOPs, every arm at the learning rate of a"
    " small grid that is best on the validation split; mean of three seeds. Here an epoch has 18 steps; each probe"
    " (with `probe_batches` of 1) takes the FLOPs of one or two, also in a last epoch that is cut short: so GT-0.7 ends"
    " at 1.06 of full fine-tuning's FLOPs. Before AdamW has any state, its update is a sign, for which Δw · ∂L/∂w and"
    " ∂L/∂w select the same tensors: a single epoch cannot distinguish them. Below full fine-tuning's cost every GT arm"
    " is ahead of the baselines that cost as much or more; at its cost nothing is ahead of full fine-tuning, which is"
    " ρ = 1. LoRA is here as in the paper, of rank 8 on the query and value projections: the next benchmark has it on"
    " all linear layers at higher rates, and full fine-tuning that stops early, which are ahead of GreenTrainer.",
    "frontier": "What each method learns for its FLOPs: a run for each arm, learning rate and budget, with a linear"
    " schedule over its own steps, each arm and budget at the rate of a small grid with the lowest validation loss."
    " LoRA has rank 16 on all linear layers. Arms named above a block train the blocks above it, of 30, and are counted"
    " as if the frozen blocks' output of a row were computed once and then read from a cache, or, where it is filled,"
    " were never computed in this run; the two-phase arm adapts all blocks in its first third. No arm without a filled"
    " cache takes a whole epoch of steps for a budget of half an epoch, so that its cache is first read at a budget"
    " of 1. No arm that fills a cache itself is ahead of LoRA, and one that finds it filled is ahead by less than seeds"
    " differ: the service has no such cache. LISA trains embedding, last norm and two random blocks, drawn again every"
    " four steps; BAdam five blocks in turn, four steps each.",
    "ablations": "The options of adaptive backpropagation, one changed at a time, on one seed. By gradients, the"
    " default, every selection was the same; by the paper's importance (`metric` of dw_grad) each epoch took up what"
    " the one before had left out, which trained more tensors in turn: its loss was lower, and so was its ROUGE."
    " Within an epoch, on the frontier, its loss was higher.",
    "precision": "Weights in bfloat16 with float32 masters, against float32 throughout. Here products of bfloat16"
    " numbers are computed in float32 and rounded, as a device with such instructions does.",
    "gpu": "Time and energy of training steps against their FLOPs, as shares of full fine-tuning's, and the peak memory"
    " against what a job's preparation predicts, on models with random weights: neither depends on what was learned.",
    "policies": "Every kind of policy under every gate, on the hourly intensities of a grid that varies (Spain) and of"
    " a clean one (Norway). [How to choose a policy](policies.md) explains this table.",
    "own_forecast": "The forecast that plans use where a provider gives none: share of the saving of perfect knowledge"
    " that pauses reach with it. Besides the two grids, synthetic series that each have one property.",
    "service": "The service under many stored jobs and many clients. A list page has 50 jobs, except for a rare"
    " status. All pollers start within two seconds, each with its own connection and list: that peak is the"
    " tail of their times. A worker has loaded its libraries and forks a process for each job: the next is ready a"
    " moment after the last has ended.",
    "dashboard": "Load times in a browser. The server downsamples the curves of the long run and keeps their peaks; a"
    " zoom loads finer ones.",
}

PENDING = {
    "gpu": "## Training steps on a GPU\n\nNot measured yet: `make gpu` on a machine with a CUDA device writes the"
    " results, and this section is generated from them.\n",
}
"""Sections of benchmarks that have not run on this project's machines, shown in place of results."""


def render_page(results: Path = RESULTS) -> str:
    """Render the page as Markdown, with a section for each result, and for each that is pending."""
    sections = [
        _section(name, introduction, json.loads((results / f"{name}.json").read_text()))
        if (results / f"{name}.json").is_file()
        else PENDING.get(name)
        for name, introduction in SECTIONS.items()
    ]
    return "\n".join([INTRODUCTION, *filter(None, sections)])


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
    for page in PAGES:
        page.write_text(fill_measured_blocks(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
