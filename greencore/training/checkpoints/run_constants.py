"""Values that a run settles at its first start and reads at every later one."""

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
    """Return what `read` makes of the JSON value in `file`; where there is none, make it and write it there durably.

    A file that is damaged, or of which `read` makes nothing (ValueError, TypeError or KeyError), is replaced; the log
    says so.
    """
    if file.is_file():
        try:
            return read(json.loads(file.read_text()))
        except (ValueError, TypeError, KeyError) as error:
            _log.warning("%s cannot be read and is made once more: %s: %s", file, type(error).__name__, error)
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
