"""Reports a benchmark's results: a table on the terminal, and the same figures as JSON with machine and date."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def format_markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Format rows of cells as a table of Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines))


def publish(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    columns: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    checks: Mapping[str, bool] | None = None,
    options: str | None = None,
    folder: Path = RESULTS,
    details: Mapping[str, Any] | None = None,
) -> int:
    """Print `rows` as a table, write them to `folder/NAME.json`, and return the exit status.

    `columns` selects and orders the table's columns (default: the first row's keys); the JSON has every value. `checks`
    maps a condition to whether it holds; the status is 1 where one does not. `options` are the command's options
    without paths of this machine (default: as given). The JSON alone has the `details`.
    """
    shown = list(columns or rows[0])
    table = Table(*shown, title=title)
    for row in rows:
        table.add_row(*(format_value(row.get(column)) for column in shown))
    console = Console(width=max(100, 12 * len(shown), Console().width))
    console.print(table)
    for note in notes:
        console.print(note)
    for check, held in (checks or {}).items():
        console.print(f"{'holds ' if held else 'MISSED'}  {check}")
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "benchmark": name,
        "title": title,
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(
            ["python", "-m", _running_module(), *(sys.argv[1:] if options is None else filter(None, [options]))]
        ),
        "machine": describe_machine(),
        "columns": shown,
        "rows": list(rows),
        "notes": list(notes),
        "checks": dict(checks or {}),
        **(details or {}),
    }
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return 0 if all((checks or {}).values()) else 1


def describe_machine() -> dict[str, Any]:
    """Describe the machine of the measurements."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }


def format_value(value: Any) -> str:
    """Format a value for a table."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return "0" if abs(value) < 1e-9 else f"{value:.4g}"  # rounding errors are no figures
    return str(value)


def _running_module() -> str:
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "benchmarks are run by python -m"
    return spec.name.removesuffix(".__main__")  # as a package is named on the command line


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
