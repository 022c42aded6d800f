"""Restricts the service's files to its own account: folders to mode 0700, files to 0600."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import structlog

FOLDER_MODE = 0o700
FILE_MODE = 0o600
PRIVATE_UMASK = 0o077
# Folders of the data folder with users' rows, models, checkpoints, results and logs.
PRIVATE_FOLDERS = ("datasets", "jobs", "logs", "models", "removed")
OF_SERVERS = ("postgres", "valkey")
FILES_BESIDE = ("secret-key", "secret-key.draft", "service-url", "service-url.draft", "stack.lock")

log = structlog.get_logger()


def set_private_umask() -> None:
    """Set the umask with which this process and its children create private files."""
    os.umask(PRIVATE_UMASK)


def make_private_folder(folder: Path) -> None:
    """Create a folder and its missing parents with mode 0700; an existing one keeps its mode."""
    if not folder.is_dir():
        make_private_folder(folder.parent)
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def open_private(path: str, flags: int) -> int:
    """Open a file descriptor, creating the file with mode 0600; for the `opener` argument of `open`."""
    return os.open(path, flags, FILE_MODE)


def restrict_data_folder(data_dir: Path) -> None:
    """Remove permissions of group and others from `FILES_BESIDE` and `PRIVATE_FOLDERS`, which an earlier version left.

    Symbolic links are not followed. A file of another account is left unchanged and logged. The data folder itself is
    restricted where it contains nothing else; run by root, it stays traversable for the embedded PostgreSQL's account.
    """
    try:
        own = {*PRIVATE_FOLDERS, *OF_SERVERS, *FILES_BESIDE}
        if data_dir.is_dir() and {path.name for path in data_dir.iterdir()} <= own:
            _restrict([data_dir], taken_away=PRIVATE_UMASK if os.geteuid() != 0 else PRIVATE_UMASK & ~0o011)
        _restrict(data_dir / name for name in FILES_BESIDE)
        for folder in (data_dir / name for name in PRIVATE_FOLDERS):
            if folder.is_dir():
                # The folder first: other accounts then reach nothing below it.
                _restrict([folder])
                for path, folders, files in os.walk(folder):
                    _restrict(Path(path) / name for name in (*folders, *files))
    except OSError as error:  # readiness reports an unreadable folder
        log.warning("files.not_private", path=str(data_dir), error=os.strerror(error.errno or 0))


def _restrict(paths: Iterable[Path], *, taken_away: int = PRIVATE_UMASK) -> None:
    for path in paths:
        try:
            mode = stat.S_IMODE(path.lstat().st_mode)
            if mode & taken_away and not path.is_symlink():
                path.chmod(mode & ~taken_away)
        except FileNotFoundError:
            continue  # another process has just removed it
        except OSError as error:
            log.warning("files.not_private", path=str(path), error=os.strerror(error.errno or 0))
