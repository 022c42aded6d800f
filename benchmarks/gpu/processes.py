"""Processes of the GPU kit that end when their time is spent, with all that they started."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def run_process(command: Sequence[str], *, cwd: Path, seconds: float, captured: bool = True) -> tuple[int | None, str]:
    """Run a command, and return its exit status, None where it was killed after so many seconds, and its output.

    Unless `captured`, the output is this process's.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE if captured else None,
        stderr=subprocess.STDOUT if captured else None,
        start_new_session=True,  # so that a signal reaches its children
    )
    try:
        output, _ = process.communicate(timeout=max(0.1, seconds))
        status: int | None = process.returncode
    except subprocess.TimeoutExpired:
        _kill(process)
        output, _ = process.communicate()
        status = None
    finally:
        _kill(process)  # what it may have left running
    return status, output or ""


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
