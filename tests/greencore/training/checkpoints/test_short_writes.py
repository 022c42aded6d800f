"""Tensors truncated by a full disk without an error are detected."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from greencore.disk import DiskFull, atomic_directory, fsync_tree


@pytest.mark.parametrize("kept_bytes", [-1, 40, 4])
def test_a_truncated_safetensors_file_raises_disk_full(tmp_path: Path, kept_bytes: int) -> None:
    with pytest.raises(DiskFull, match="of its"):
        write_short(tmp_path / "checkpoint", kept_bytes)
    assert not (tmp_path / "checkpoint").exists()


def write_short(target: Path, kept_bytes: int) -> None:
    with atomic_directory(target) as folder:
        file = folder / "model.safetensors"
        save_file({"a": torch.zeros(8)}, file)
        fsync_tree(folder)
        os.truncate(file, kept_bytes % file.stat().st_size)
        fsync_tree(folder)
