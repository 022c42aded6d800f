"""The processes that train one model together (torchrun), each with a part of its tensors and of a step's rows."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed

from greencore.disk import load_or_create

Value = TypeVar("Value")

# After which a process that waits fails: longer than the first one writes a result. A dead one torchrun notices itself.
HANG_SECONDS = 7200.0
MAX_CAUSES = 8


def join_processes() -> None:
    """Join the processes that torchrun started beside this one; there need not be any."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend, timeout=timedelta(seconds=HANG_SECONDS))


def leave_processes() -> None:
    """End this process's part: the group's threads, left to the interpreter's end, may abort it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def count_processes() -> int:
    """Return how many processes train the model together: 1 for a run of its own."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def get_rank() -> int:
    """Return the number of this process, from 0; the first one decides, reports, and writes what is written once."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def agree(value: Value) -> Value:
    """Return the first process's value in all of them; each calls this at the same point of the run."""
    if count_processes() == 1:
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def collect(value: Value) -> list[Value]:
    """Return the values of all processes, by rank."""
    values: list[Any] = [None] * count_processes()
    if len(values) == 1:
        return [value]
    torch.distributed.all_gather_object(values, value)
    return values


def do_first(act: Callable[[], None]) -> None:
    """Let the first process act while the others wait; where it raises, all raise its error."""
    packed = list[PackedError]()
    if get_rank() == 0:
        try:
            act()
        except Exception as error:
            if count_processes() == 1:
                raise
            packed = pack_error(error)
    if packed := agree(packed):
        raise unpack_error(packed)


@dataclass(frozen=True)
class PackedError:
    """An error as another process can load it: what makes it, of which values, and its attributes."""

    kind: Any
    values: tuple[Any, ...]
    attributes: Mapping[str, Any]


def pack_error(error: BaseException | None) -> list[PackedError]:
    """Return an error and its causes, packed; one that holds what cannot be sent becomes a RuntimeError."""
    packed = list[PackedError]()
    while error is not None and len(packed) < MAX_CAUSES:
        reduced: Any = error.__reduce__()
        kind, values, *attributes = reduced
        try:
            ForkingPickler.dumps([kind, values, attributes])
        except Exception:  # noqa: BLE001  # of whatever the error holds
            kind, values, attributes = RuntimeError, (f"{type(error).__name__}: {error}",), []
        packed.append(PackedError(kind, values, attributes[0] if attributes else {}))
        error = error.__cause__
    return packed


def unpack_error(packed: Sequence[PackedError]) -> Exception:
    """Return a packed error with its causes."""
    errors = [_unpack(one) for one in packed]
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def _unpack(packed: PackedError) -> Exception:
    # Not by its constructor, whose parameters need not be the values that the error holds.
    error: Exception = packed.kind.__new__(packed.kind, *packed.values)
    error.__dict__.update(packed.attributes)
    return error


def is_lost_contact(error: BaseException) -> bool:
    """Return whether an error says that another process cannot be reached, as where that was killed."""
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def sum_over_processes(values: Sequence[float]) -> list[float]:
    """Sum each value over all processes."""
    return [sum(column) for column in zip(*collect(list(values)), strict=True)]


def recall(file: Path, make: Callable[[], Any], read: Callable[[Any], Value]) -> Value:
    """Return `load_or_create` of the first process in all of them; where it makes the value, all call `make`."""
    if count_processes() == 1:
        return load_or_create(file, make, read)
    stored: list[Any] = []

    def keep(value: Any) -> Any:
        found = read(value)
        stored.append(value)
        return found

    if agree(_is_readable(file, keep) if get_rank() == 0 else None):
        return read(agree(stored[0] if stored else None))
    value = make()
    if get_rank() == 0:
        load_or_create(file, lambda: value, read)
    return read(agree(value))


def _is_readable(file: Path, read: Callable[[Any], Any]) -> bool:
    try:
        read(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError, KeyError):
        return False
    return True
