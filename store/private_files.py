"""Keeps the service's files private to its own account: folders have mode 0700, files 0600."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import structlog

FOLDER_MODE = 0o700
FILE_MODE = 0o600
PRIVATE_UMASK = 0o077
# Rows, models, checkpoints, results and log lines of users, in the data folder.
PRIVATE_FOLDERS = ("datasets", "jobs", "logs", "models", "removed")

log = structlog.get_logger()


def set_private_umask() -> None:
    """Have every file that this process and its children create be private, whatever umask they inherited."""
    os.umask(PRIVATE_UMASK)


def make_private_folder(folder: Path) -> None:
    """Create a folder with mode 0700, with the missing folders above it; an existing one keeps its mode."""
    if not folder.is_dir():
        make_private_folder(folder.parent)
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def open_private(path: str, flags: int) -> int:
    """Open a file descriptor that creates its file with mode 0600: the `opener` of `open`."""
    return os.open(path, flags, FILE_MODE)


def restrict_data_folder(data_dir: Path) -> None:
    """Take the permissions of group and others away from what an earlier version has left in `PRIVATE_FOLDERS`.

    Symbolic links below these folders are not followed. What belongs to another account stays as it is, and is logged.
    """
    for folder in (data_dir / name for name in PRIVATE_FOLDERS):
        if folder.is_dir():
            # The folder comes first: from then on nobody else reaches what is below it.
            _restrict([folder])
            for path, folders, files in os.walk(folder):
                _restrict(Path(path) / name for name in (*folders, *files))


def _restrict(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            mode = stat.S_IMODE(path.lstat().st_mode)
            if mode & PRIVATE_UMASK and not path.is_symlink():
                path.chmod(mode & ~PRIVATE_UMASK)
        except FileNotFoundError:
            continue  # a process beside this one has just removed it
        except OSError as error:
            log.warning("files.not_private", path=str(path), error=os.strerror(error.errno or 0))
