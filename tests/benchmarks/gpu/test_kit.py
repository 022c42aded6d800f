"""The GPU kit, tried without a GPU: what it measures, writes, skips and refuses."""

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from benchmarks.gpu import requirements
from benchmarks.gpu.gauges import Gauge
from benchmarks.gpu.kit import GRACE_SECONDS, measure_in_process
from benchmarks.gpu.measure import CellSkipped, measure_cell, measure_part, share_traces
from benchmarks.gpu.predictions import Predictions, predict
from benchmarks.gpu.report import COLUMNS, add_shares
from benchmarks.gpu.scales import ARMS, FULL, GREEN, SCALES
from benchmarks.page import render_page

ROOT = Path(__file__).parents[3]
TINY = SCALES["tiny"]
PART = TINY.parts[0]
CPU = torch.device("cpu")


def run_kit(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a whole run on tiny models."""
    folder = tmp_path_factory.mktemp("results")
    done = run_kit("--device", "cpu", "--scale", "tiny", "--folder", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def report(trial: Path) -> Any:
    return json.loads((trial / "gpu.json").read_text())


def test_every_arm_is_measured_against_full_fine_tuning(report: Any) -> None:
    rows = {row["arm"]: row for row in report["rows"] if row["model"] == "tiny"}
    assert rows.keys() == {arm.name for arm in ARMS}
    for arm in ARMS:
        row = rows[arm.name]
        assert row["s per step"] > 0
        assert row["time share"] == pytest.approx(row["s per step"] / rows["full"]["s per step"])
        assert row["peak GiB"] == pytest.approx(row["predicted GiB"], rel=0.35)
        if arm.method == "greentrainer":
            assert arm.rho - 0.05 < row["share"] <= arm.rho
            assert row["selection s"] > 0
            assert row["probe s"] is not None


def test_the_report_has_versions_and_says_what_was_skipped(report: Any) -> None:
    assert report["columns"] == list(COLUMNS)
    assert report["versions"]["torch"] == requirements.find_version("torch")
    assert {line["cell"].rpartition(", ")[2] for line in report["skipped"]} == {"flash", "liger"}
    notes = "\n".join(report["notes"])
    assert "flash" in notes
    assert "no energy was measured: the energy counter is a GPU's" in notes
    assert "prefix cache is not measured" in notes
    assert all(report["checks"].values())


def test_the_page_has_a_table_of_the_results(trial: Path, report: Any) -> None:
    page = render_page(trial)
    assert f"## {report['title']}" in page
    table = [line for line in page.splitlines() if line.startswith("| tiny | 32 |")]
    assert len(table) == len(ARMS)
    assert all(line.count("|") == len(COLUMNS) + 1 for line in table)
    assert "Not measured yet" not in page


def test_the_page_has_a_place_for_results_that_are_not_there_yet(tmp_path: Path) -> None:
    assert "`make gpu` on a machine with a CUDA device writes the results" in render_page(tmp_path)


def test_a_machine_without_a_cuda_device_is_refused_in_a_line(tmp_path: Path) -> None:
    done = run_kit("--folder", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("make gpu needs a CUDA device")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_missing_and_old_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(requirements.list_faults()) == []
    monkeypatch.setattr(requirements, "NEEDED", (("torch", "torch"), ("no_such_one", "no-such-one")))
    monkeypatch.setattr(requirements, "OLDEST", {"torch": (99, 0)})
    missing, old = requirements.list_faults()
    assert missing == "not installed: no-such-one"
    assert old.endswith("is older than 99.0")
    assert requirements.explain_missing_kernels("liger", cuda=False) is not None
    assert requirements.explain_missing_kernels("sdpa", cuda=False) is None


def test_a_part_whose_time_is_spent_measures_nothing_more(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    measure_part(TINY, PART, CPU, file=file, until=time.monotonic() + 1)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["cell"] for line in lines] == [cell.name for cell in PART.cells]
    assert {line["skipped"] for line in lines} == {"the time was spent"}


def test_a_part_that_does_not_end_is_ended_and_its_cells_are_listed(tmp_path: Path) -> None:
    soon = time.monotonic() - GRACE_SECONDS + 0.5  # before torch is loaded
    lines = measure_in_process("tiny", PART, "cpu", tmp_path / "rows.jsonl", until=soon)
    assert [line["cell"] for line in lines] == [cell.name for cell in PART.cells]
    assert {line["skipped"] for line in lines} == {"its process was ended when the time was spent"}


class SmallGauge(Gauge):
    """Reads a device whose memory holds no step."""

    @property
    def free_bytes(self) -> int:
        return 2**20


def test_a_step_that_would_not_fit_is_not_tried() -> None:
    with Predictions((), processes=0) as predictions, pytest.raises(CellSkipped, match=r"needs 0\.0 GiB of 0\.0"):
        measure_cell(PART.cells[0], SmallGauge(CPU), predictions, seconds=5)


def test_nothing_of_a_model_is_left_in_memory_for_the_next() -> None:
    gc.collect()
    before = sum(isinstance(one, LlamaForCausalLM) for one in gc.get_objects())
    with share_traces():
        for cell in PART.cells[:3]:  # full, GT and LoRA
            measure_cell(cell, Gauge(CPU), None, seconds=5)
    gc.collect()
    assert sum(isinstance(one, LlamaForCausalLM) for one in gc.get_objects()) == before


def test_memory_is_predicted_alike_in_a_process_beside() -> None:
    cell = next(cell for cell in PART.cells if cell.arm == GREEN)
    with Predictions([cell], processes=1) as predictions:
        assert predictions.get(cell, recomputed=False) == predict(cell, recomputed=False)


def test_shares_are_of_full_fine_tuning_on_the_same_part_batch_and_kernels() -> None:
    def row(arm: str, seconds: float, joules: float | None, **changed: Any) -> dict[str, Any]:
        alike = {"part": "1B", "model": "1B", "tokens": 512, "kernels": "sdpa"}
        return {**alike, "arm": arm, "s per step": seconds, "J per step": joules, **changed}

    full, other = row(FULL.name, 2.0, 100.0), row(FULL.name, 9.0, 900.0, kernels="flash")
    found = add_shares(
        [other, full, row("GT-0.5", 1.0, 60.0), row("LoRA", 1.5, None), row("GT-0.7", 1, 1, tokens=2048)]
    )
    shares = {one["arm"]: (one["time share"], one["energy share"]) for one in found[2:]}
    assert shares == {"GT-0.5": (0.5, 0.6), "LoRA": (0.75, None), "GT-0.7": (None, None)}
