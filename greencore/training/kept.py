"""Values that a run settles at its first start and reads at every later one."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from greencore.training.checkpoint_folder import flush


def keep(file: Path, make: Callable[[], Any]) -> Any:
    """Return the JSON value in `file`; where there is no such file, make the value and write it there durably."""
    if file.is_file():
        return json.loads(file.read_text())
    value = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    working = file.with_name(f".{file.stem}-{os.getpid()}{file.suffix}")
    try:
        working.write_text(json.dumps(value))
        flush(working)
        working.rename(file)
    finally:
        working.unlink(missing_ok=True)
    return value
