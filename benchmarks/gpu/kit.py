"""The whole kit: tests, then the parts in processes of their own, then the report."""

import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.marked_tests import ROOT, TestOutcome, find_marked_files, run_marked_tests
from benchmarks.gpu.measure import measure_part
from benchmarks.gpu.processes import run_process
from benchmarks.gpu.report import publish_report
from benchmarks.gpu.requirements import explain_missing_kernels
from benchmarks.gpu.scales import SCALES, Cell, Part
from benchmarks.report import RESULTS

TRIAL_FOLDER = ROOT / "build" / "gpu"  # of a trial, whose figures are not to be published
GRACE_SECONDS = 12.0  # in which a part ends by itself once its time is spent


def run_kit(name: str, device: str, *, folder: Path | None, began: float) -> int:
    """Run the kit at a scale, whose time began at `began` (of `time.monotonic`), and return its exit status."""
    if torch.cuda.device_count() > 1:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # of the tests and the parts: a Trainer would take all
    scale = SCALES[name]
    end = began + scale.seconds
    tests: TestOutcome | None = None
    if device == "cuda":
        print("tests marked gpu", flush=True)
        tests = run_marked_tests(find_marked_files(), seconds=scale.test_seconds)
        print(tests.output if tests.failed else tests.describe(), flush=True)
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        for index, part in enumerate(scale.parts):
            left = end - time.monotonic()
            seconds = left * part.weight / sum(other.weight for other in scale.parts[index:])
            lines += measure_in_process(
                name, part, device, Path(work) / f"{index}.jsonl", until=time.monotonic() + seconds
            )
    trial = name != "h200" or device != "cuda"
    return publish_report(
        scale,
        lines,
        tests,
        seconds=time.monotonic() - began,
        options=f"--device {device} --scale {name}" if trial else "",
        folder=folder or (TRIAL_FOLDER if trial else RESULTS),
    )


def run_part(name: str, part: str, device: str, *, file: Path, until: float) -> None:
    """Measure a part in this process."""
    warnings.simplefilter("ignore")
    scale = SCALES[name]
    [chosen] = [one for one in scale.parts if one.name == part]
    measure_part(scale, chosen, torch.device(device), file=file, until=until)


def measure_in_process(name: str, part: Part, device: str, file: Path, *, until: float) -> list[dict[str, Any]]:
    """Measure a part in a process of its own, and return its lines, those of cells that it did not reach as skipped.

    A kernel that fails may leave a process without its device, and one that hangs has to be killed. Of a part that
    compares kernels nothing is measured where only PyTorch's can run.
    """
    others = [cell for cell in part.cells if cell.kernels != "sdpa"]
    faults = [explain_missing_kernels(cell.kernels, cuda=device == "cuda") for cell in others]
    if others and None not in faults:
        return [_skip(part, cell, fault or "") for cell, fault in zip(others, faults, strict=True)]
    command = [
        *(sys.executable, "-m", "benchmarks.gpu", "--scale", name, "--device", device),
        *("--part", part.name, "--rows", str(file), "--until", str(until)),
    ]
    seconds = until - time.monotonic() + GRACE_SECONDS
    status, _ = run_process(command, cwd=ROOT, seconds=seconds, captured=False)
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    reason = "its process was ended when the time was spent" if status is None else f"its process ended with {status}"
    reached = {line["cell"] for line in lines}
    return lines + [_skip(part, cell, reason) for cell in part.cells if cell.name not in reached]


def _skip(part: Part, cell: Cell, reason: str) -> dict[str, Any]:
    return {"cell": cell.name, "part": part.name, "skipped": reason}
