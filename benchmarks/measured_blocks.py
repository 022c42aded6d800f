"""Fills the measured blocks of the documents from the results of benchmarks."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.carbon import policy_tables
from benchmarks.report import RESULTS
from benchmarks.training.frontier import findings

ROOT = Path(__file__).parents[1]
POLICIES_PAGE, README = ROOT / "docs" / "policies.md", ROOT / "README.md"
PAGES = (POLICIES_PAGE, README)

Rows = Sequence[Mapping[str, Any]]


def _state_learning(rows: Rows) -> str:
    return f"Measured on SmolLM2-135M ([benchmarks](benchmarks.md)): {findings.state_saving_costs(rows)}."


BLOCKS: Mapping[str, tuple[str, Callable[[Rows], str]]] = {
    **{name: ("policies", write) for name, write in policy_tables.BLOCKS.items()},
    "learning": ("frontier", _state_learning),
    "methods": ("frontier", findings.tabulate_methods),
}
"""The results that each block is written from, and how."""


def fill_measured_blocks(page: str, results: Path = RESULTS) -> str:
    """Replace the text between each `<!-- measured: NAME -->` and `<!-- end -->` of the page by the generated one.

    A block whose results are not in the folder stays. Raises KeyError for an unknown name.
    """

    def block(match: re.Match[str]) -> str:
        source, write = BLOCKS[match[2]]
        file = results / f"{source}.json"
        if not file.is_file():
            return match[0]
        return f"{match[1]}\n{write(json.loads(file.read_text())['rows'])}\n{match[3]}"

    return re.sub(r"(<!-- measured: ([\w-]+) -->)\n.*?\n?(<!-- end -->)", block, page, flags=re.DOTALL)
