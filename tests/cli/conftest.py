"""Fixtures: `greentune` as a process, in an environment without this service's settings."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from api.main import create_app
from greentune.client import Client
from runtime.settings import Settings
from tests.api.conftest import NOW
from tests.server import run_server

START_SECONDS = 90.0


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove this service's settings from the environment."""
    for name in list(os.environ):
        if name.startswith("GREENTUNE_") or name in {"DATABASE_URL", "REDIS_URL"}:
            monkeypatch.delenv(name)


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    """URL of a running service."""
    with run_server(create_app(settings, clock=lambda: NOW)) as url:
        yield url


@pytest.fixture
def client(url: str, operator_key: str) -> Iterator[Client]:
    """An operator's client."""
    with Client(url, operator_key) as client:
        yield client


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of two rows."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "Leaves are green."}\n{"text": "Snow is white."}\n')
    return file


class GreentuneProcess:
    """A running `greentune` command and the lines that it has shown."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GREENTUNE_") and name not in {"DATABASE_URL", "REDIS_URL"}
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=Path(__file__).parents[2],
            env={**inherited, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str) -> str:
        """Return the first line that contains `text`."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if text in line:
                    return line
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"no line with {text!r} in:\n{self.output}")

    def process_tree(self) -> list[psutil.Process]:
        """Return every descendant of this process."""
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(10)
        return code

    def finish(self) -> int:
        """Wait for the end of the command, and return its exit code."""
        code = self.process.wait(60)
        self._reader.join(10)
        return code

    def close(self) -> None:
        """Kill the command if it still runs; its watchdog stops its processes."""
        if self.process.poll() is None:
            family = self.process_tree()
            self.process.kill()
            self.process.wait()
            assert_gone(family)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))


Run = Callable[..., GreentuneProcess]


@pytest.fixture(scope="module")
def greentune() -> Iterator[Run]:
    """Return a function that starts `greentune`; its processes are killed after the module's tests."""
    commands: list[GreentuneProcess] = []

    def run(*arguments: str, environment: dict[str, str] | None = None) -> GreentuneProcess:
        commands.append(GreentuneProcess(*arguments, environment=environment))
        return commands[-1]

    yield run
    for command in commands:
        command.close()


@pytest.fixture(scope="session", name="assert_gone")
def provide_assert_gone() -> Callable[[list[psutil.Process]], None]:
    """Return `assert_gone`."""
    return assert_gone


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a folder whose path is short enough for a Unix socket, as pytest's may not be."""
    with tempfile.TemporaryDirectory(prefix="greentune-test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def assert_gone(processes: list[psutil.Process], *, seconds: float = 30.0) -> None:
    """Fail where one of the processes still runs after `seconds`; a zombie does not run.

    Independent of `cli.stack.processes`, which this checks.
    """
    deadline = time.monotonic() + seconds
    while running := [process for process in processes if _runs(process)]:
        assert time.monotonic() < deadline, f"left behind: {[(p.pid, p.cmdline()) for p in running]}"
        time.sleep(0.05)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
