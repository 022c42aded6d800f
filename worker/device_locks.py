"""Locks of this machine's devices, which a job's process holds until it ends: no two jobs train on one device."""

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

POLL_SECONDS = 0.1
UNSAFE_IN_NAMES = re.compile(r"[^\w-]")


class DeviceLocks:
    """Locks of some devices, held until `close` or the end of the process, when the kernel releases them.

    A GPU's memory is free only once the process that used it has ended, so a job's process does not close them.
    `folder` holds the lock files, by default a temporary one of this machine and user, which all its workers share.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"greentune-devices-{os.getuid()}"
        self._locks = ExitStack()

    def take(self, entries: Sequence[str], count: int, *, wait_seconds: float) -> tuple[str, ...] | None:
        """Lock `count` of the devices `entries`, and return them; None where fewer come free within `wait_seconds`."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = time.monotonic() + wait_seconds
        while (held := self._lock_free_ones(entries, count)) is None:
            if time.monotonic() > deadline:
                return None
            time.sleep(POLL_SECONDS)
        return held

    def close(self) -> None:
        """Release the locks."""
        self._locks.close()

    def _lock_free_ones(self, entries: Sequence[str], count: int) -> tuple[str, ...] | None:
        """Lock the first free devices; none of them where there are too few, so that others can have these."""
        with ExitStack() as locks:
            held = list[str]()
            for entry in entries:
                if len(held) < count and _lock(self._folder / f"{UNSAFE_IN_NAMES.sub('_', entry)}.lock", locks):
                    held.append(entry)
            if len(held) < count:
                return None
            self._locks.push(locks.pop_all())
            return tuple(held)


def _lock(file: Path, locks: ExitStack) -> bool:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    locks.callback(os.close, descriptor)
    return True
