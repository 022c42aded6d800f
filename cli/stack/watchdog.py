"""Watchdog process: stops the processes of a stack that was killed.

Reads `watch PID SIGNAL` and `forget PID` from its standard input. The end of that input means that the stack
has ended: a pipe is closed even when its writer is killed.
"""

import signal
import sys
from contextlib import suppress

import psutil

from cli.stack.processes import kill_all, list_descendants
from greencore.host_processes import kill_process_group, wait_until_gone

GRACE_SECONDS = 5.0


def main() -> None:
    """Watch until the input ends, then stop the watched processes, the last one first."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[int, tuple[psutil.Process, int]] = {}
    for line in sys.stdin:
        action, pid, *rest = line.split()
        if action == "forget":
            watched.pop(int(pid), None)
        else:
            # Looked up at once: psutil distinguishes this process from a later one with the same id.
            with suppress(psutil.NoSuchProcess):
                watched[int(pid)] = (psutil.Process(int(pid)), int(rest[0]))
    for process, stop_signal in reversed(watched.values()):
        _stop(process, stop_signal)


def _stop(process: psutil.Process, stop_signal: int) -> None:
    children = list_descendants(process.pid) if process.is_running() else []
    with suppress(psutil.NoSuchProcess):
        process.send_signal(stop_signal)
    alive = wait_until_gone([process], GRACE_SECONDS)
    kill_all([*alive, *children])
    kill_process_group(process.pid)


if __name__ == "__main__":
    main()
