"""Forking of job processes from a worker: preloaded memory, and a lock against forks while a thread works."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from worker.app import START_METHOD

_fork_lock = Lock()


def preload_before_fork() -> None:
    """Load the modules of every attempt once, so that the forked job processes share their memory.

    Must not initialise CUDA, which cannot be used after a fork.
    """
    if START_METHOD != "fork":
        return
    # Makes torch look for a GPU through NVML, without initialising CUDA.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    gc.disable()  # its collections take a sixth of the time of these imports
    import worker.failure_reports
    import worker.training.attempt  # noqa: F401

    os.register_at_fork(
        before=_fork_lock.acquire, after_in_parent=_fork_lock.release, after_in_child=_fork_lock.release
    )
    # Objects that the collector does not visit are not written to, so their pages stay shared.
    gc.collect()
    gc.freeze()
    gc.enable()


@contextmanager
def block_forking() -> Iterator[None]:
    """Prevent forks while the block runs: a process forked during it would inherit locks that its thread holds."""
    with _fork_lock:
        yield
