"""Errors that go from one process of a run to another keep their type, their values and their causes."""

import pytest
import torch

from greencore.backprop import BudgetTooSmall
from greencore.dataset import InvalidRow
from greencore.settings.hyperparameters import SettingUnsupported
from greencore.training.processes import is_lost_contact, pack_error, unpack_error


@pytest.mark.parametrize(
    "error",
    [
        SettingUnsupported("optimizer", "adafactor cannot"),
        InvalidRow(3, "prompt", "is missing"),
        BudgetTooSmall(0.1, 0.4),
        torch.OutOfMemoryError("CUDA out of memory"),
        FileNotFoundError(2, "No such file or directory", "rows.jsonl"),
        ValueError("ρ", 1),
    ],
)
def test_an_error_is_the_same_in_another_process(error: Exception) -> None:
    found = unpack_error(pack_error(error))
    assert type(found) is type(error)
    assert (str(found), found.args, vars(found)) == (str(error), error.args, vars(error))
    assert getattr(found, "filename", None) == getattr(error, "filename", None)


def test_the_causes_of_an_error_go_with_it() -> None:
    error = ValueError("a row of rows.jsonl")
    error.__cause__ = cause = KeyError("secret")
    cause.__cause__ = OSError(5, "Input/output error")
    found = unpack_error(pack_error(error))
    assert (repr(found.__cause__), repr(found.__cause__ and found.__cause__.__cause__)) == (
        repr(cause),
        repr(cause.__cause__),
    )


def test_an_error_that_holds_what_cannot_be_pickled_becomes_its_text() -> None:
    error = ValueError(lambda: None)
    found = unpack_error(pack_error(error))
    assert type(found) is RuntimeError
    assert str(found) == f"ValueError: {error}"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4432"), True),
        (torch.distributed.DistBackendError("NCCL error"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (ValueError("gloo"), False),
    ],
)
def test_an_error_of_the_group_is_told_from_one_of_the_process(error: Exception, lost: bool) -> None:
    assert is_lost_contact(error) is lost
