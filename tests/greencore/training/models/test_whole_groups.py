"""Which runs keep frozen groups whole; what they keep is tested in `methods/test_processes.py`."""

from pathlib import Path

import pytest
import torch

from greencore.training.batches.micro_batches import StepTooLarge
from greencore.training.models.whole_groups import allow_whole_groups


@pytest.mark.parametrize(
    "error",
    [
        StepTooLarge("a process's device ran out of memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_after_memory_has_run_out_nothing_is_kept_whole(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)), allow_whole_groups(tmp_path / "run"):
        raise error
    with allow_whole_groups(tmp_path / "run") as allowed:
        assert not allowed


def test_after_another_error_it_still_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), allow_whole_groups(tmp_path):
        raise RuntimeError("shapes do not match")
    with allow_whole_groups(tmp_path) as allowed:
        assert allowed
