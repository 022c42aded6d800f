"""Ends of processes of this machine, which need not be children of this one."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

POLL_SECONDS = 0.05


def kill_process_group(pgid: int) -> None:
    """Kill what is left of a process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signal.SIGKILL)


def wait_until_gone(processes: Sequence[psutil.Process], timeout_seconds: float) -> list[psutil.Process]:
    """Wait for processes that need not be children of this one; returns those that still run.

    A zombie counts as gone: in a container it is often never reaped.
    """
    deadline = time.monotonic() + timeout_seconds
    while running := [process for process in processes if _runs(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    return running


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
