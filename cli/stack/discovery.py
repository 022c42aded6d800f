"""Where the `greentune serve` of a data folder answers, for commands that are run beside it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.private_files import open_private


@contextmanager
def advertise_service(data_dir: Path, url: str) -> Iterator[None]:
    """Tell commands on this machine where the service is, for as long as the block runs."""
    file = _service_url_file(data_dir)
    draft = file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with open(draft, "x", opener=open_private) as record:
        record.write(f"{os.getpid()} {url}\n")
    draft.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def discover_service(data_dir: Path) -> str | None:
    """The address that a service of this data folder has recorded; None where none runs."""
    try:
        pid, url = _service_url_file(data_dir).read_text().split()
        return url if _process_exists(int(pid)) else None
    except (OSError, ValueError):
        return None


def _process_exists(pid: int) -> bool:
    """Whether there is such a process: one that was killed leaves its record behind."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # a process of another account
    except ProcessLookupError:
        return False
    return True


def _service_url_file(data_dir: Path) -> Path:
    return data_dir / "service-url"
