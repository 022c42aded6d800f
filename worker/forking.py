"""Forking of job processes from a worker: preloaded memory, and a lock against forks while a thread works."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from greencore.agents.preloading import load_before_fork
from worker.app import START_METHOD

_fork_lock = Lock()


def preload_before_fork() -> None:
    """Load the modules of every attempt once, so that the forked job processes share their memory."""
    if START_METHOD != "fork":
        return
    load_before_fork(["worker.failure_reports", "worker.training.attempt"])
    os.register_at_fork(
        before=_fork_lock.acquire, after_in_parent=_fork_lock.release, after_in_child=_fork_lock.release
    )


@contextmanager
def block_forking() -> Iterator[None]:
    """Prevent forks while the block runs: a process forked during it would inherit locks that its thread holds."""
    with _fork_lock:
        yield
