"""The GPU kit's report: a row for each measurement, shares of full fine-tuning, and what was skipped and why."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.marked_tests import TestOutcome
from benchmarks.gpu.requirements import list_versions
from benchmarks.gpu.scales import LEARNED_SHARE, Scale
from benchmarks.report import publish
from benchmarks.training.peak_memory import TOLERANCE

NAME = "gpu"
LIMIT_SECONDS = 540
COLUMNS = (
    *("model", "tokens", "rows", "kernels", "arm", "share", "time share", "energy share", "s per step", "J per step"),
    *("TFLOP/s", "peak GiB", "predicted GiB", "probe s", "selection s"),
)
Row = Mapping[str, Any]


def publish_report(
    scale: Scale,
    lines: Sequence[Row],
    tests: TestOutcome | None,
    *,
    seconds: float,
    options: str,
    folder: Path,
) -> int:
    """Print and write the report of all lines of the parts (`benchmarks.gpu.measure`), and return the exit status."""
    rows = add_shares([line for line in lines if "skipped" not in line])
    ratios = [(row["arm"], row["peak GiB"] / row["predicted GiB"]) for row in rows if row["predicted GiB"]]
    checks = {
        "something was measured": bool(rows),
        f"peak memory at most {TOLERANCE:.0%} above the prediction": all(one <= 1 + TOLERANCE for _, one in ratios),
        f"full fine-tuning's at most {TOLERANCE:.0%} below it": all(
            one >= 1 - TOLERANCE for arm, one in ratios if arm == "full"
        ),
        f"all in less than {LIMIT_SECONDS // 60} minutes": seconds < LIMIT_SECONDS,
    }
    if tests is not None:
        checks["no test marked gpu fails"] = not tests.failed
    return publish(
        NAME,
        scale.title,
        rows,
        columns=COLUMNS,
        notes=[*_describe(rows), *list_skipped(lines, tests)],
        checks=checks,
        options=options,
        folder=folder,
        details={
            "versions": {**list_versions(), "cuda": torch.version.cuda, "driver": _read_driver_version()},
            "seconds": seconds,
            "skipped": [dict(line) for line in lines if "skipped" in line],
            "tests": None
            if tests is None
            else {"passed": tests.passed, "failed": tests.failed, "skipped": tests.skipped},
        },
    )


def add_shares(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Add each row's share of the time and energy of a step of full fine-tuning on its model, batch and kernels."""
    return [{**row, **_compute_shares(row, _find_full(row, rows))} for row in rows]


def _find_full(row: Row, rows: Sequence[Row]) -> Row | None:
    alike = ("part", "model", "tokens", "kernels")
    matching = [one for one in rows if one["arm"] == "full" and all(one[key] == row[key] for key in alike)]
    return matching[0] if matching else None


def _compute_shares(row: Row, full: Row | None) -> dict[str, float | None]:
    joules = None if full is None else full["J per step"]
    return {
        "time share": None if full is None else row["s per step"] / full["s per step"],
        "energy share": row["J per step"] / joules if joules and row["J per step"] is not None else None,
    }


def list_skipped(lines: Sequence[Row], tests: TestOutcome | None) -> list[str]:
    """List in words what was skipped and why, with equal reasons together."""
    reasons = [(line["skipped"], line["cell"]) for line in lines if "skipped" in line]
    if tests is not None:
        reasons += [(reason, test) for test, reason in tests.skipped.items()]
    reasons.sort(key=lambda pair: pair[0])
    found = [
        f"skipped ({reason}): {'; '.join(what for _, what in alike)}"
        for reason, alike in groupby(reasons, key=lambda pair: pair[0])
    ]
    no_energy = sorted({line["no energy"] for line in lines if line.get("no energy")})
    return [
        *found,
        *(f"no energy was measured: {reason}" for reason in no_energy),
        *(f"failed: {name}" for name in (tests.failed if tests else ())),
        *([] if tests is None else [tests.describe()]),
    ]


def _describe(rows: Sequence[Row]) -> list[str]:
    recomputed = sorted({f"{row['model']} at {row['tokens']} tokens" for row in rows if row["recomputed"]})
    versions = ", ".join(f"{name} {found}" for name, found in list_versions().items() if found is not None)
    return [
        "a share is of full fine-tuning's step on the same model, rows and kernels: of its FLOPs (share), time and"
        f" energy; random weights in bfloat16 with float32 masters of what is trained, AdamW, one token in"
        f" {LEARNED_SHARE} of a row learned, logits there alone",
        "time and energy: of the steps of two epochs that measure no importance, without the first two; joules by"
        " NVML's counter of the GPU alone, with what it takes idle",
        "peak: of the memory that torch allocates; predicted: as for a job in preparation, for the largest tensors"
        " within ρ; probe: what the last epoch's first step, in which importance is measured, takes beyond another",
        "the prefix cache is not measured: there is none",
        *([f"blocks recompute: {'; '.join(recomputed)}"] if recomputed else []),
        f"versions: {versions}",
    ]


def _read_driver_version() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # noqa: BLE001  (without the package, a driver or a GPU there is none)
        return None
