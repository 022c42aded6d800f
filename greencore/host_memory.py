"""Memory of the host within its container's limit: in all, and what is left of it."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

CGROUP_FILES = (  # of a container: (limit, use), in versions 2 and 1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
CGROUP_LIMITS = tuple(limit for limit, _ in CGROUP_FILES)


def read_host_memory(cgroup_limits: Sequence[Path] = CGROUP_LIMITS) -> int:
    """Return the bytes of the host's memory, or of its container's limit where that is lower."""
    total = int(psutil.virtual_memory().total)
    for limit in cgroup_limits:
        with suppress(OSError, ValueError):  # no such file, or "max"
            total = min(total, int(limit.read_text()))
    return total


def get_available_memory() -> int:
    """Return the memory in bytes that this process can still take: the host's, within its container's limit."""
    available = int(psutil.virtual_memory().available)
    for limit, use in CGROUP_FILES:
        with suppress(OSError, ValueError):  # no such file, or "max"
            available = min(available, int(limit.read_text()) - int(use.read_text()))
    return max(available, 0)
