"""The tests marked `gpu` are run, counted, and skipped where a package is missing; what hangs is ended."""

import sys
import time
from pathlib import Path

from benchmarks.gpu.marked_tests import ROOT, find_marked_files, run_marked_tests
from benchmarks.gpu.processes import run_process

MARK = "pytest.mark." + "gpu"  # in two parts, so that this file is none of those that are found
TESTS = f"""import pytest
@{MARK}
def test_that_passes(): pass
@{MARK}
def test_that_fails(): assert 1 == 2
@{MARK}
def test_that_skips(): pytest.skip("no such thing")
def test_without_the_mark(): assert 1 == 3
"""


def test_marked_tests_are_told_apart_by_their_outcome(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_needing.py").write_text(f"import no_such_package\nimport pytest\npytestmark = {MARK}\n")
    (tmp_path / "test_other.py").write_text("def test_nothing(): pass\n")
    files = find_marked_files(tmp_path)
    assert [file.name for file in files] == ["test_needing.py", "test_some.py"]
    outcome = run_marked_tests(files, seconds=60)
    assert [name.split("::")[-1] for name in outcome.passed] == ["test_that_passes"]
    assert [name.split("::")[-1] for name in outcome.failed] == ["test_that_fails"]
    assert sorted(outcome.skipped.values()) == ["No module named 'no_such_package'", "no such thing"]
    assert outcome.describe().startswith("tests marked gpu: 1 passed, 1 failed, 2 skipped in ")


def test_the_projects_marked_tests_are_found() -> None:
    found = find_marked_files()
    assert ROOT / "tests" / "greencore" / "training" / "methods" / "test_gpu.py" in found
    assert Path(__file__) not in found


def test_a_process_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    sign = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(2); pathlib.Path({str(sign)!r}).touch()"
    parent = f"import subprocess, sys; print('begun', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    status, output = run_process([sys.executable, "-c", parent], cwd=tmp_path, seconds=1)
    assert status is None
    assert output == "begun\n"
    time.sleep(2)
    assert not sign.exists()
