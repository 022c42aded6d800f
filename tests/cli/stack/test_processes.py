"""Processes of the stack start, exit and stop together with their children."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from cli.errors import ProcessFailed
from cli.stack.processes import MAX_QUICK_EXITS, ManagedProcess, ProcessSpec, Watchdog, python_environment

# Starts a child that ignores every signal but SIGKILL, writes its id, and waits.
WITH_A_CHILD = """
import subprocess, sys, time
stubborn = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; time.sleep(600)"
print(subprocess.Popen([sys.executable, "-c", stubborn]).pid, flush=True)
time.sleep(600)
"""
IGNORES_SIGTERM = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"

T = TypeVar("T")
Start = Callable[..., ManagedProcess]
Gone = Callable[[list[psutil.Process]], None]


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    with Watchdog() as watchdog:
        yield watchdog


@pytest.fixture
def start(tmp_path: Path, watchdog: Watchdog) -> Iterator[Start]:
    started: list[ManagedProcess] = []

    def start(code: str, grace_seconds: float = 5.0) -> ManagedProcess:
        service = ProcessSpec(
            name="program", command=[sys.executable, "-c", code], ready=lambda: True, grace_seconds=grace_seconds
        )
        process = ManagedProcess(service, tmp_path / "program.log", watchdog)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.request_stop()
        process.wait_for_exit(threading.Event())


def test_stopping_a_process_kills_a_child_that_ignores_signals(start: Start, assert_gone: Gone) -> None:
    process = start(WITH_A_CHILD)
    child = psutil.Process(int(first_line(process)))
    process.request_stop()
    process.wait_for_exit(threading.Event())
    assert not process.alive
    assert_gone([child])


def test_the_child_of_a_killed_process_is_killed(start: Start, assert_gone: Gone) -> None:
    process = start(WITH_A_CHILD)
    child = psutil.Process(int(first_line(process)))
    psutil.Process(process.pid).kill()
    assert wait_until(process.poll_exit) == "killed by SIGKILL"
    assert_gone([child])


def test_a_process_that_outlasts_its_grace_is_killed(start: Start) -> None:
    process = start(IGNORES_SIGTERM, grace_seconds=0.3)
    first_line(process)
    process.request_stop()
    process.wait_for_exit(threading.Event())
    assert not process.alive


def test_force_ends_the_grace_period(start: Start) -> None:
    process = start(IGNORES_SIGTERM, grace_seconds=60)
    first_line(process)
    force = threading.Event()
    force.set()
    begin = time.monotonic()
    process.request_stop()
    process.wait_for_exit(force)
    assert time.monotonic() - begin < 10


def test_backoff_grows_with_each_quick_exit_until_restarts_end(start: Start) -> None:
    process = start("print('no luck'); raise SystemExit(3)")
    pauses = []
    for _ in range(MAX_QUICK_EXITS):
        assert wait_until(process.poll_exit) == "exit code 3"
        pauses.append(process.backoff_seconds())
        process.start()
    assert pauses == [0.5, 1.0, 2.0, 4.0, None]


def test_a_failure_ends_with_what_the_process_wrote_in_its_last_run(start: Start) -> None:
    process = start("print('first run')")
    wait_until(process.poll_exit)
    process.spec = ProcessSpec(name="program", command=[sys.executable, "-c", "print('second run')"], ready=bool)
    process.start()
    wait_until(process.poll_exit)
    message = str(process.describe_failure("does not stay up"))
    assert message.startswith("program does not stay up; ")
    assert message.endswith("second run")
    assert "first run" not in message


def test_a_program_that_does_not_exist_is_named(tmp_path: Path, watchdog: Watchdog) -> None:
    service = ProcessSpec(name="api", command=[str(tmp_path / "nothing")], ready=lambda: True)
    with pytest.raises(ProcessFailed, match=r"api cannot be started.*nothing"):
        ManagedProcess(service, tmp_path / "api.log", watchdog).start()


def test_the_watchdog_stops_the_processes_of_a_killed_stack(tmp_path: Path, assert_gone: Gone) -> None:
    code = f"""
        import sys, time
        from pathlib import Path
        from cli.stack.processes import ProcessSpec, ManagedProcess, Watchdog
        service = ProcessSpec(name="program", command=[sys.executable, "-c", {WITH_A_CHILD!r}], ready=bool)
        process = ManagedProcess(service, Path({str(tmp_path)!r}) / "program.log", Watchdog())
        process.start()
        print(process.pid, flush=True)
        time.sleep(600)
    """
    stack = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], env=python_environment(), stdout=subprocess.PIPE, text=True
    )
    assert stack.stdout is not None
    with stack, stack.stdout:
        process = psutil.Process(int(stack.stdout.readline()))
        [child] = wait_until(process.children)
        watchdog = next(p for p in psutil.Process(stack.pid).children() if p != process)
        stack.send_signal(signal.SIGKILL)
    assert_gone([process, child, watchdog])


def first_line(process: ManagedProcess) -> str:
    """Return the first line that a process writes."""
    return str(wait_until(lambda: process.log.read_text() if process.log.read_text().endswith("\n") else "")).strip()


def wait_until(read: Callable[[], T]) -> T:
    """Return the first true value of `read`; fail after 20 s."""
    deadline = time.monotonic() + 20
    while not (value := read()):
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)
    return value
