"""Where a run's checkpoints lie: complete or absent, and told from damaged ones before anything is read of them."""

import errno
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from greencore.disk import DISK_FULL_ERRNOS

CHECKPOINT_PREFIX = "checkpoint-"
MANIFEST = "manifest.json"
CHUNK_BYTES = 2**20


class DiskFull(OSError):
    """The disk has no room for what a run has to write; what was half written is removed."""


class CheckpointDamaged(ValueError):
    """A checkpoint's files are not what was written; the message names the file."""


class CheckpointUnusable(ValueError):
    """A checkpoint is whole, but not one that this model can go on from; the message says why."""


class CheckpointFolder:
    """The checkpoints of one run. Each is written aside, flushed to disk and renamed; only the last is kept.

    A subclass that keeps a register of them says which is the newest, and what happens to a complete or failed one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_newest(self) -> Path | None:
        """The one to go on from."""
        return find_latest_checkpoint(self.folder)

    def checkpoint_name(self, step: int) -> str:
        """What the checkpoint after so many steps is called."""
        return f"{CHECKPOINT_PREFIX}{step}"

    def write_checkpoint(self, step: int, epochs_done: int, fill: Callable[[Path], None]) -> None:
        """Have `fill` write a checkpoint's files into a folder of its own, and make it one of the run's."""
        final = self.folder / self.checkpoint_name(step)
        working = final.with_name(f".{final.name}")
        try:
            with atomic_directory(working):
                fill(working)
                _write_manifest(working)
                fsync_tree(working)
        except DiskFull as error:
            self.on_checkpoint_failed(step, error)
            return
        if final.exists():
            shutil.rmtree(final)
        working.rename(final)
        fsync_path(self.folder)
        self.on_checkpoint_complete(final, step, epochs_done)

    def on_checkpoint_complete(self, checkpoint: Path, step: int, epochs_done: int) -> None:
        """A checkpoint is on disk under its name: what came before it is removed."""
        for path in self.folder.glob(f"{CHECKPOINT_PREFIX}*"):
            if path != checkpoint:
                shutil.rmtree(path)

    def on_checkpoint_failed(self, step: int, error: DiskFull) -> None:
        """There was no room for a checkpoint. Raises the error: a run without checkpoints is not begun unasked."""
        raise error


def find_latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run; a half-written one never has its final name."""
    found = [
        path for path in folder.glob(f"{CHECKPOINT_PREFIX}*") if path.name.removeprefix(CHECKPOINT_PREFIX).isdigit()
    ]
    return max(found, key=lambda path: int(path.name.removeprefix(CHECKPOINT_PREFIX)), default=None)


def verify_checkpoint(checkpoint: Path) -> None:
    """Raises `CheckpointDamaged` where a file is missing, of another size, or of another content than was written."""
    try:
        expected: dict[str, list[int]] = json.loads((checkpoint / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointDamaged(f"{MANIFEST} of {checkpoint.name} cannot be read: {error}") from error
    for name, (size_bytes, checksum) in expected.items():
        file = checkpoint / name
        if not file.is_file():
            raise CheckpointDamaged(f"{name} of {checkpoint.name} is missing")
        if file.stat().st_size != size_bytes:
            raise CheckpointDamaged(f"{name} of {checkpoint.name} has {file.stat().st_size} bytes, not {size_bytes}")
        if _checksum(file) != checksum:
            raise CheckpointDamaged(f"{name} of {checkpoint.name} has another content than was written")


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """A new folder for the block to fill, which is gone again where the block fails.

    Raises `DiskFull` in place of the many errors by which libraries say so.
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
    """Whether an error, of Python's own or of a library in Rust, says that there is no room or that a quota is up."""
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        return True
    return any(f"(os error {number})" in str(error) for number in DISK_FULL_ERRNOS)


def fsync_tree(folder: Path) -> None:
    """Flush every file below a folder, and the folder itself, to the disk.

    Raises OSError where tensors were written short: a full disk is not always reported to whoever writes.
    """
    for path in [*folder.rglob("*"), folder]:
        fsync_path(path)
        if path.suffix == ".safetensors":
            _check_safetensors_length(path)


def _check_safetensors_length(file: Path) -> None:
    """Hold a safetensors file against the length that its own header gives."""
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


def fsync_path(path: Path) -> None:
    """Have a file or folder on the disk before anything else happens."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_manifest(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content = {str(file.relative_to(folder)): [file.stat().st_size, _checksum(file)] for file in files}
    (folder / MANIFEST).write_text(json.dumps(content))


def _checksum(file: Path) -> int:
    """CRC-32, which finds damage and is no slower than reading the file."""
    checksum = 0
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
