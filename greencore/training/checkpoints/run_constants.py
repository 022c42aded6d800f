"""Values fixed at a run's first start and read at every later one: its template clock and first evaluation."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from greencore.training.checkpoints.folder import fsync_path

Value = TypeVar("Value")

_log = logging.getLogger(__name__)


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
