"""Child processes of the stack: each in a group of its own, so that it stops with all of its children."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import psutil

from cli.errors import ProcessFailed
from greencore.host_processes import kill_process_group, wait_until_gone
from runtime.private_files import PRIVATE_UMASK, open_private

LOG_TAIL_LINES = 20
KILL_SECONDS = 5.0
POLL_SECONDS = 0.05
# After this run time a process has started successfully: its next exit counts as the first one.
STABLE_AFTER_SECONDS = 60.0
MAX_QUICK_EXITS = 5
MAX_BACKOFF_SECONDS = 15.0


@dataclass(frozen=True)
class Account:
    """The system account that a process runs under, where it is not the caller's own."""

    uid: int
    gid: int


@dataclass(frozen=True)
class ProcessSpec:
    """One long-running program of the stack: how to start it, check its readiness, and stop it."""

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10.0
    ready_seconds: float = 60.0


class ManagedProcess:
    """A running `ProcessSpec`. Its output is appended to `log`; `poll_exit()` detects its end."""

    def __init__(self, spec: ProcessSpec, log: Path, watchdog: "Watchdog") -> None:
        self.spec = spec
        self.log = log
        self._watchdog = watchdog
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_offset = 0
        self._started = 0.0
        self._quick_exits = 0

    @property
    def pid(self) -> int | None:
        """Id of the running process; None where none runs."""
        return None if self._popen is None else self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Start the program. Raises `ProcessFailed` where there is no such program or no permission for it."""
        spec = self.spec
        with open(self.log, "ab", opener=open_private) as log:
            self._log_offset = log.seek(0, os.SEEK_END)
            try:
                self._popen = subprocess.Popen(
                    spec.command,
                    env={**inherited_environment(), **spec.environment},
                    cwd=spec.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    umask=PRIVATE_UMASK,
                    **account_arguments(spec.account),
                )
            except OSError as error:
                raise ProcessFailed(f"{spec.name} cannot be started: {error}") from error
        self._started = time.monotonic()
        self._watchdog.watch(self._popen.pid, spec.stop_signal)

    def poll_exit(self) -> str | None:
        """Return how the process ended, None while it runs. Its children are stopped with it."""
        if self._popen is None or self._popen.poll() is None:
            return None
        code = self._popen.returncode
        self._release()
        return f"killed by {_signal_name(-code)}" if code < 0 else f"exit code {code}"

    def backoff_seconds(self) -> float | None:
        """Return the seconds to wait before the next start; None after too many quick exits in a row."""
        if time.monotonic() - self._started > STABLE_AFTER_SECONDS:
            self._quick_exits = 0
        self._quick_exits += 1
        if self._quick_exits >= MAX_QUICK_EXITS:
            return None
        return float(min(0.5 * 2 ** (self._quick_exits - 1), MAX_BACKOFF_SECONDS))

    def request_stop(self) -> None:
        """Send the stop signal, without waiting for the end."""
        if self.alive and self._popen is not None:
            with suppress(ProcessLookupError):
                self._popen.send_signal(self.spec.stop_signal)

    def wait_for_exit(self, force: threading.Event) -> None:
        """Wait for a process that was asked to stop; kill it after its grace period, or at once when `force` is set.

        No child of it survives either.
        """
        if self._popen is None:
            return
        children = list_descendants(self._popen.pid)
        deadline = time.monotonic() + self.spec.grace_seconds
        while self._popen.poll() is None and time.monotonic() < deadline and not force.wait(POLL_SECONDS):
            children = list_descendants(self._popen.pid) or children
        self._popen.kill()
        self._popen.wait()
        self._release()
        kill_all(children)

    def describe_failure(self, what: str) -> ProcessFailed:
        """Return an error about this process that ends with the last lines it wrote since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_offset)
            tail = b"".join(deque(log, maxlen=LOG_TAIL_LINES)).decode(errors="replace").rstrip()
        where = f"the end of {self.log}:\n{tail}" if tail else f"{self.log} holds nothing about it"
        return ProcessFailed(f"{self.spec.name} {what}; {where}")

    def _release(self) -> None:
        assert self._popen is not None
        kill_process_group(self._popen.pid)
        self._watchdog.forget(self._popen.pid)
        self._popen = None


class Watchdog:
    """A process that stops every watched process if this one is killed."""

    def __init__(self) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "cli.stack.watchdog"],
            env={**inherited_environment(), **python_environment()},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the watchdog, after everything that it watched has stopped."""
        with suppress(BrokenPipeError):
            self._pipe.close()
        try:
            self._popen.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def watch(self, pid: int, stop_signal: signal.Signals) -> None:
        """Have a process stopped if the caller dies; those watched last are stopped first."""
        self._send_command(f"watch {pid} {int(stop_signal)}\n")

    def forget(self, pid: int) -> None:
        """Stop watching a process that has ended."""
        self._send_command(f"forget {pid}\n")

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._popen.stdin is not None
        return self._popen.stdin

    def _send_command(self, line: str) -> None:
        # The watched processes keep running without a watchdog.
        with suppress(BrokenPipeError):
            self._pipe.write(line.encode())
            self._pipe.flush()


def account_arguments(account: Account | None) -> dict[str, Any]:
    """Return the arguments of `subprocess` that run a program under an account; with None, under the caller's."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def inherited_environment() -> dict[str, str]:
    """Return the environment without settings: each program gets only those that it needs."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GREENTUNE_") and name not in ("DATABASE_URL", "REDIS_URL")
    }


def python_environment() -> dict[str, str]:
    """Return the variables with which a Python child imports this code, in any folder."""
    root = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return {
        "PYTHONPATH": f"{root}{os.pathsep}{inherited}" if inherited else root,
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
    }


def list_descendants(pid: int) -> list[psutil.Process]:
    """Return the descendants of a process; empty if it has ended."""
    try:
        children: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return children


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """Kill those processes that still run, and wait until they are gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until_gone(processes, KILL_SECONDS)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
