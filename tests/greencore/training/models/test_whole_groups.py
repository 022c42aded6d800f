"""Which runs keep frozen groups whole; what they keep is tested in `methods/test_processes.py`."""

from pathlib import Path

import pytest
import torch

from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.micro_batches import StepTooLarge
from greencore.training.models.whole_groups import allow_whole_groups

SETTINGS = Hyperparameters(batch_size=4)


@pytest.mark.parametrize(
    "error",
    [
        StepTooLarge("a process's device ran out of memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_after_memory_has_run_out_nothing_is_kept_whole(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)), allow_whole_groups(tmp_path, SETTINGS):
        raise error
    with allow_whole_groups(tmp_path, SETTINGS) as allowed:
        assert not allowed


def test_after_another_error_it_still_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), allow_whole_groups(tmp_path, SETTINGS):
        raise RuntimeError("shapes do not match")
    with allow_whole_groups(tmp_path, SETTINGS) as allowed:
        assert allowed


def test_a_run_whose_rows_cannot_be_halved_keeps_nothing_whole(tmp_path: Path) -> None:
    one_row = SETTINGS.model_copy(update={"micro_batch_size": 1})
    with allow_whole_groups(tmp_path, one_row) as allowed:
        assert not allowed
