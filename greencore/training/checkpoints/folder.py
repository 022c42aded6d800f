"""Checkpoint folder of a run: atomic, checksummed writes, and verification before reading."""

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

from greencore.disk import DiskFull, atomic_directory, fsync_path, fsync_tree

CHECKPOINT_PREFIX = "checkpoint-"
MANIFEST = "manifest.json"
CHUNK_BYTES = 2**20


class CheckpointDamaged(ValueError):
    """A checkpoint's file is missing or differs from what was written; the message names it."""


class CheckpointUnusable(ValueError):
    """An intact checkpoint does not fit this model; the message says why."""


class CheckpointFolder:
    """Checkpoints of one run: each is written to a temporary folder, flushed and renamed.

    Only the newest is kept, and that of the step that the run keeps as its best. A subclass that registers checkpoints
    elsewhere overrides `find_newest`, `find_step`, `on_checkpoint_complete` and `on_checkpoint_failed`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_newest(self) -> Path | None:
        """Return the newest complete checkpoint, to resume from; an incomplete one never has its final name."""
        steps = self._list_complete()
        return steps[max(steps)] if steps else None

    def find_step(self, step: int) -> Path | None:
        """Return the complete checkpoint of a step."""
        return self._list_complete().get(step)

    def _list_complete(self) -> dict[int, Path]:
        paths = self.folder.glob(f"{CHECKPOINT_PREFIX}*")
        return {int(step): path for path in paths if (step := path.name.removeprefix(CHECKPOINT_PREFIX)).isdigit()}

    def checkpoint_name(self, step: int) -> str:
        """Return the folder name of the checkpoint of a step."""
        return f"{CHECKPOINT_PREFIX}{step}"

    def write_checkpoint(
        self, step: int, epochs_done: int, fill: Callable[[Path], None], *, kept_step: int | None = None
    ) -> None:
        """Write a checkpoint atomically: `fill` writes its files into a temporary folder.

        The checkpoint of `kept_step` is not removed.
        """
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
        self.on_checkpoint_complete(final, step, epochs_done, kept_step=kept_step)

    def on_checkpoint_complete(self, checkpoint: Path, step: int, epochs_done: int, *, kept_step: int | None) -> None:
        """Remove the older checkpoints but that of `kept_step`, after a checkpoint is complete on disk."""
        for path in self.folder.glob(f"{CHECKPOINT_PREFIX}*"):
            if path not in (checkpoint, None if kept_step is None else self.find_step(kept_step)):
                shutil.rmtree(path)

    def on_checkpoint_failed(self, step: int, error: DiskFull) -> None:
        """Raise the error of a full disk: a run continues without checkpoints only where a subclass allows it."""
        raise error


def verify_checkpoint(checkpoint: Path) -> None:
    """Raise `CheckpointDamaged` where a file is missing, or its size or checksum is not that in the manifest."""
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


def _write_manifest(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content = {str(file.relative_to(folder)): [file.stat().st_size, _checksum(file)] for file in files}
    (folder / MANIFEST).write_text(json.dumps(content))


def _checksum(file: Path) -> int:
    """Return the CRC-32 of a file, which detects damage at the speed of reading."""
    checksum = 0
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
