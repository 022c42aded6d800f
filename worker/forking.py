"""A job's process is a fork of its worker: what is loaded before, and what must not happen at the same time."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from worker.app import START_METHOD

_fork_lock = Lock()


def preload_before_fork() -> None:
    """Load what every attempt needs, once and not anew for each job, whose processes share its memory.

    Nothing here asks CUDA anything, which could not be used after a fork.
    """
    if START_METHOD != "fork":
        return
    # Whoever asks whether there is a GPU has NVML asked, which leaves CUDA alone.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

    os.register_at_fork(
        before=_fork_lock.acquire, after_in_parent=_fork_lock.release, after_in_child=_fork_lock.release
    )
    # What the collector never looks at again is never written to, and so stays shared.
    gc.collect()
    gc.freeze()


@contextmanager
def block_forking() -> Iterator[None]:
    """Have no process forked while the block runs: one forked from under a thread inherits the locks that it held."""
    with _fork_lock:
        yield
