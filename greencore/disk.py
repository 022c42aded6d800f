"""Atomic, durable writes of files and folders, and detection of a full disk."""

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

# No space left, quota exceeded, file size limit exceeded.
DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

Value = TypeVar("Value")

_log = logging.getLogger(__name__)


class DiskFull(OSError):
    """The disk is full; the partly written folder is removed."""


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """Create a folder for the block to fill, and remove it where the block fails.

    Raises `DiskFull` in place of the various errors by which libraries report a full disk.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if is_disk_full(error):
            raise DiskFull(f"there is no room for {folder.name.lstrip('.')}: {error}") from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error of Python or of a Rust library reports a full disk or an exceeded quota."""
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        return True
    return any(f"(os error {number})" in str(error) for number in DISK_FULL_ERRNOS)


def fsync_tree(folder: Path) -> None:
    """Flush every file below a folder, and the folder itself, to the disk.

    Raises OSError for a truncated safetensors file: a full disk is not always reported to the writer.
    """
    for path in [*folder.rglob("*"), folder]:
        fsync_path(path)
        if path.suffix == ".safetensors":
            _check_safetensors_length(path)


def fsync_path(path: Path) -> None:
    """Flush a file or folder to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_or_create(file: Path, make: Callable[[], Any], read: Callable[[Any], Value]) -> Value:
    """Return `read` of the JSON value in `file`; where the file is missing, write the value of `make` there durably.

    A damaged file, or one that `read` rejects (ValueError, TypeError or KeyError), is replaced with a warning.
    """
    if file.is_file():
        try:
            return read(json.loads(file.read_text()))
        except (ValueError, TypeError, KeyError) as error:
            _log.warning("%s cannot be read and is replaced: %s: %s", file, type(error).__name__, error)
    value = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    working = file.with_name(f".{file.stem}-{os.getpid()}{file.suffix}")
    try:
        working.write_text(json.dumps(value))
        fsync_path(working)
        working.rename(file)
    finally:
        working.unlink(missing_ok=True)
    return read(value)


def _check_safetensors_length(file: Path) -> None:
    """Raise OSError where a safetensors file is shorter or longer than its header says."""
    with file.open("rb") as content:
        header_bytes = int.from_bytes(content.read(8), "little")
        try:
            header = json.loads(content.read(header_bytes))
            tensors = [value for name, value in header.items() if name != "__metadata__"]
            expected = 8 + header_bytes + max((tensor["data_offsets"][1] for tensor in tensors), default=0)
        except ValueError:
            expected = 8 + header_bytes
    if file.stat().st_size != expected:
        raise OSError(errno.ENOSPC, f"{file.name} holds {file.stat().st_size} of its {expected} bytes")
