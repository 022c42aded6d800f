"""Which machine a process runs on."""

import platform
from functools import lru_cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@lru_cache(maxsize=1)
def host_id() -> str:
    """Return the same text for all processes of a machine since it was started, in containers, too.

    It is the kernel's boot id, and the machine's name where there is none. A machine's monotonic clock is common to
    the same processes, and begins anew with the same event.
    """
    try:
        return BOOT_ID.read_text().strip() or platform.node()
    except OSError:
        return platform.node()
